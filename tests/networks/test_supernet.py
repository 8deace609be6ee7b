"""One set of weights, every network: entangled kernels, single paths, gradients of choices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folders import striped
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.networks.build import build_module
from hwnas_sdk.networks.supernet import (
    EntangledConv,
    SearchCell,
    Supernet,
    SupernetConfig,
    inherited_weights,
    one_hot,
)
from hwnas_sdk.networks.supernet_response import (
    ResponsePlan,
    SupernetResponse,
    inherited_accuracy_pct,
    new_supernet,
    search_halves,
)
from hwnas_sdk.networks.training.images import load_images
from hwnas_sdk.networks.training.tasks import TASKS
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
TINY = SupernetConfig(input_shape=(1, 8, 8), channels=(4, 8), cells_per_stage=1)
PLAN = ResponsePlan(batch_size=16, learning_rate=0.1, padding=0, flip=False, cutout=0)
cells = st.tuples(*[st.integers(0, 4)] * 6)


def tiny(**changes: object) -> Supernet:
    return new_supernet(replace(TINY, **changes), seed=0)


def pixels(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def normed(x: torch.Tensor) -> torch.Tensor:
    """Batch norm by hand."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-5)


# --- entanglement -----------------------------------------------------------------------------


def test_the_1x1_kernel_is_the_centre_tap_itself() -> None:
    conv = EntangledConv(4)
    tap = conv.kernel(1)
    assert tap.untyped_storage().data_ptr() == conv.conv.weight.untyped_storage().data_ptr()
    assert torch.equal(tap[:, :, 0, 0], conv.conv.weight[:, :, 1, 1])
    with torch.no_grad():
        conv.conv.weight[:, :, 1, 1] = 7
    assert (tap == 7).all()
    assert [name for name, _ in conv.named_parameters()] == ["conv.weight"]


def test_a_1x1_convolution_teaches_the_tap_only() -> None:
    conv = EntangledConv(4)
    x = torch.randn(2, 4, 5, 5)
    conv(x, 1).square().mul(torch.randn(2, 4, 5, 5)).sum().backward()
    gradient = conv.conv.weight.grad
    assert gradient is not None
    assert gradient[:, :, 1, 1].abs().min() > 0
    outside = torch.ones(3, 3, dtype=torch.bool)
    outside[1, 1] = False
    assert (gradient[:, :, outside] == 0).all()


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_is_relu_conv_norm(size: int) -> None:
    conv, x = EntangledConv(4), torch.randn(3, 4, 5, 5)
    plain = functional.conv2d(x.clamp(min=0), conv.kernel(size), padding=size // 2)
    assert torch.allclose(conv(x, size), normed(plain), atol=1e-5)


# --- one path ---------------------------------------------------------------------------------


def by_hand(cell: SearchCell, x: torch.Tensor, genotype: tuple[int, ...]) -> torch.Tensor:
    nodes = [x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)]
    pairs = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    for edge, (source, target) in enumerate(pairs):
        operators = {
            SKIP: lambda v: v,
            CONV1: lambda v, edge=edge: cell.edges[edge](v, 1),
            CONV3: lambda v, edge=edge: cell.edges[edge](v, 3),
            POOL: lambda v: functional.avg_pool2d(v, 3, 1, 1, count_include_pad=False),
        }
        if genotype[edge] != NONE:
            nodes[target] = nodes[target] + operators[genotype[edge]](nodes[source])
    return nodes[3]


@settings(max_examples=25)
@given(cells, st.sampled_from(["gdas", "zero"]))
def test_a_cell_runs_the_chosen_operators(genotype: tuple[int, ...], inactive) -> None:
    cell, x = SearchCell(4, inactive), pixels().expand(-1, 4, -1, -1)
    out = cell(x, one_hot(genotype), genotype)
    assert torch.allclose(out, by_hand(cell, x, genotype), atol=1e-6)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("genotype", [(3, 2, 4, 1, 3, 2), (2, 0, 3, 0, 4, 3)])
def test_a_network_of_its_own_with_inherited_weights_agrees(
    genotype: tuple[int, ...], *, folded: bool
) -> None:
    supernet = new_supernet(SupernetConfig(input_shape=(1, 8, 8)), seed=0)
    graph = SPACE.layers(SPACE.architecture(genotype), dataset="digits", folded=folded)
    module = build_module(graph)  # in training mode: batch statistics
    module.load_state_dict(inherited_weights(supernet, genotype, graph))
    x = pixels(4)
    with torch.no_grad():
        assert torch.allclose(module(x), supernet(x, one_hot(genotype)), atol=1e-3)


def test_weights_that_do_not_fit_are_named() -> None:
    graph = SPACE.layers(SPACE.from_index(3), dataset="cifar10")
    with pytest.raises(ModelError, match=r"'stem\.conv\.weight' is \(4, 1, 3, 3\)"):
        inherited_weights(tiny(), SPACE.from_index(3).genotype, graph)
    with pytest.raises(ModelError, match=r"\(5, 6\), not \(6, 5\)"):
        tiny()(pixels(), torch.zeros(5, 6))
    with pytest.raises(ModelError, match="6 x 8 images cannot be halved 2 times"):
        Supernet(SupernetConfig(input_shape=(1, 6, 8)))


# --- gradients of choices ---------------------------------------------------------------------


def edge_gradients(inactive) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the choices of a cell that is one 1x1 convolution, what it put out, upstream."""
    cell, x = SearchCell(4, inactive), pixels().expand(-1, 4, -1, -1)
    genotype = (NONE, NONE, NONE, CONV1, NONE, NONE)
    choices = one_hot(genotype).requires_grad_()
    out = cell(x, choices, genotype)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * upstream).sum().backward()
    assert choices.grad is not None
    return choices.grad, out.detach(), upstream


def test_gradient_of_the_chosen_is_exact_and_of_the_others_cheap() -> None:
    gradient, out, upstream = edge_gradients("gdas")
    assert torch.allclose(gradient[3, CONV1], (out * upstream).sum(), rtol=1e-4)
    others = [NONE, SKIP, CONV3, POOL]
    assert torch.allclose(gradient[3, others], upstream.sum().expand(4), rtol=1e-4)


def test_without_the_cheap_one_the_others_get_nothing() -> None:
    gradient, out, upstream = edge_gradients("zero")
    assert torch.allclose(gradient[3, CONV1], (out * upstream).sum(), rtol=1e-4)
    assert (gradient[3, [NONE, SKIP, CONV3, POOL]] == 0).all()


# --- the response -----------------------------------------------------------------------------


def response(seed: int = 0, **changes: object) -> SupernetResponse:
    plan = replace(PLAN, seed=seed, **changes)
    return SupernetResponse(tiny(), search_halves(striped(192)), plan)


def drawn_choices(n: int, seed: int = 0) -> torch.Tensor:
    return torch.stack([one_hot(a.genotype) for a in SPACE.sample(n, seed=seed)])


def mean_loss(asked: SupernetResponse, choices: torch.Tensor) -> float:
    with torch.no_grad():
        return float(torch.stack([asked.task_loss(choices, train=False) for _ in range(6)]).mean())


def test_learning_lowers_the_loss_and_inherited_weights_classify() -> None:
    asked, live = response(), SPACE.architecture((3, 1, 3, 1, 1, 3))
    choices = one_hot(live.genotype)[None]
    before = mean_loss(asked, choices)
    for _ in range(40):
        asked.learn(choices, torch.ones(1))
    assert mean_loss(asked, choices) < before - 0.3
    part = asked.images.valid
    dead = (NONE,) * 6
    accuracies = inherited_accuracy_pct(
        asked.supernet, [live.genotype, dead], asked.images, part, batch_size=16
    )
    assert accuracies.shape == (2,)
    assert accuracies[0] > accuracies[1] + 15
    assert len(part) % 16 == 0  # so every image counted
    hits = accuracies * len(part) / 100
    assert np.allclose(hits, np.round(hits))


def test_a_few_steps_on_the_digits_lower_the_loss() -> None:
    pytest.importorskip("sklearn")
    asked = SupernetResponse(
        tiny(),
        search_halves(load_images(TASKS["digits"])),
        ResponsePlan(batch_size=64, learning_rate=0.1, padding=1, flip=False, cutout=0),
    )
    choices = one_hot((CONV3, SKIP, CONV3, SKIP, SKIP, CONV3))[None]
    before = mean_loss(asked, choices)
    for _ in range(30):
        asked.learn(choices, torch.ones(1))
    assert mean_loss(asked, choices) < before - 0.3


def test_choices_may_be_of_another_type() -> None:
    choices = drawn_choices(1)[0].double().requires_grad_()
    tiny()(pixels(), choices).square().sum().backward()
    assert choices.grad is not None
    assert choices.grad.dtype == torch.float64


def test_asking_changes_no_weight_but_has_a_gradient() -> None:
    asked = response()
    before = {name: t.clone() for name, t in asked.supernet.state_dict().items()}
    choices = drawn_choices(3).requires_grad_()
    losses = asked.task_loss(choices, train=True)
    assert losses.shape == (3,)
    losses.sum().backward()
    assert choices.grad is not None
    assert choices.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in asked.supernet.parameters())
    after = asked.supernet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_step_is_along_the_weighted_mean() -> None:
    """One network with weight 2 of two moves like it alone; weight 0 is as if it were not there."""
    one, other = response(momentum=0.0), response(momentum=0.0)
    choices = drawn_choices(2)
    one.learn(choices, torch.tensor([2.0, 0.0]))
    other.learn(choices[:1], torch.ones(1))
    pairs = zip(one.supernet.parameters(), other.supernet.parameters(), strict=True)
    # The second network's kernels got a gradient of zero, so only weight decay moved them.
    close = [torch.allclose(a, b, atol=PLAN.learning_rate * PLAN.weight_decay) for a, b in pairs]
    assert all(close)


def test_the_rate_falls_and_the_gradient_is_cut() -> None:
    plan = {"n_steps": 2, "clip_norm": 1e-3, "weight_decay": 0.0, "momentum": 0.0}
    asked = response(**plan)
    moves = []
    for _ in range(3):
        before = torch.cat([p.detach().flatten().clone() for p in asked.supernet.parameters()])
        asked.learn(drawn_choices(1), torch.ones(1))
        after = torch.cat([p.detach().flatten() for p in asked.supernet.parameters()])
        moves.append(float((after - before).norm()))
    assert moves == pytest.approx([0.1e-3, 0.0505e-3, 0.001e-3], rel=0.05)


def test_batches_cycle_through_every_image() -> None:
    asked = response(batch_size=16)
    n_batches = len(asked.images.valid) // 16
    for _ in range(2):
        epoch = torch.cat([asked._next("valid")[1] for _ in range(n_batches)])
        assert len(epoch) == len(asked.images.valid)
        assert sorted(epoch.tolist()) == sorted(asked.images.valid.labels.tolist())


def test_a_stopped_response_goes_on_the_same() -> None:
    choices, weights = drawn_choices(2), torch.tensor([1.0, 0.5])

    def work(asked: SupernetResponse, n: int) -> None:
        for _ in range(n):
            asked.task_loss(choices, train=False)
            asked.learn(choices, weights)

    whole, first, second = response(cutout=2), response(cutout=2), response(cutout=2)
    work(whole, 4)
    work(first, 2)
    second.load_state_dict(first.state_dict())
    work(second, 2)
    pairs = zip(whole.supernet.parameters(), second.supernet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    expected, found = (asked.task_loss(choices, train=False) for asked in (whole, second))
    assert torch.equal(expected, found)
    state = response().state_dict()
    del state["supernet"]["stem.conv.weight"]
    with pytest.raises(ModelError, match="not the state of this supernetwork"):
        second.load_state_dict(state)


def test_a_loss_that_explodes_is_said() -> None:
    asked = response()
    with torch.no_grad():
        asked.supernet.head["linear"].weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="the loss is nan") as caught:
        asked.learn(drawn_choices(1), torch.ones(1))
    assert caught.value.code == "diverged"
