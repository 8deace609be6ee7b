"""Training: it learns, follows its seed, and a killed one ends like one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import striped
from torch import nn

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import Event
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.networks.training.fit import TrainPlan, accuracy_pct, default_plan, new_module, train
from hwnas_sdk.networks.training.tasks import TASKS

PLAN = TrainPlan(epochs=6, batch_size=16, learning_rate=0.05, padding=0, flip=False)


def small() -> LayerGraph:
    """Convolution, batch norm, pooling and a classifier over digit-sized images."""
    norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (12,))
    kernel = {"weight": (12, 1, 1, 8)}
    layers = (
        Layer("input", "input", (), (1, 8, 8)),
        Layer("conv", "conv", ("input",), (12, 8, 1), {"kernel": (1, 8)}, kernel),
        Layer("bn", "batch_norm", ("conv",), (12, 8, 1), {}, norm),
        Layer("relu", "relu", ("bn",), (12, 8, 1)),
        Layer("flat", "flatten", ("relu",), (96,)),
        Layer("out", "linear", ("flat",), (10,), {}, {"weight": (10, 96), "bias": (10,)}),
    )
    return LayerGraph("test:0", layers, folded=False)


def fresh(seed: int = 0) -> nn.Module:
    return new_module(small(), seed=seed)


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_it_learns() -> None:
    images, module = striped(), fresh()
    result = train(module, images, PLAN)
    assert len(result.losses) == len(result.valid_accuracy_pct) == 6
    assert result.losses[-1] < result.losses[0]
    assert not module.training
    assert accuracy_pct(module, images, images.test) > 90
    assert accuracy_pct(module, images, images.valid) == result.valid_accuracy_pct[-1]


def test_accuracy_counts_what_is_right() -> None:
    images = striped()

    class Reads(nn.Module):
        """Says the brightest row, which is the label."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum((1, 3)) * self.scale

    module = Reads()
    assert accuracy_pct(module, images, images.test, batch_size=5) == 100
    with torch.no_grad():
        module.scale.neg_()
    assert accuracy_pct(module, images, images.test) == 0


def test_the_seed_decides() -> None:
    images = striped()
    plan = replace(PLAN, epochs=2, padding=1, flip=True, cutout=2, label_smoothing=0.1)
    torch_state = torch.random.get_rng_state()
    runs = [fresh(0), fresh(0), fresh(0)]
    for module, seed in zip(runs, (0, 0, 1), strict=True):
        train(module, images, replace(plan, seed=seed))
    assert same(state_of(runs[0]), state_of(runs[1]))
    assert not same(state_of(runs[0]), state_of(runs[2]))
    assert not same(state_of(fresh(0)), state_of(fresh(1)))
    assert torch.equal(torch_state, torch.random.get_rng_state())


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    images, checkpoint = striped(), tmp_path / "c"
    plan = replace(PLAN, padding=1)
    whole = fresh()
    expected = train(whole, images, plan)

    def stop_after(n: int):
        def sink(event: Event) -> None:
            if event.done == n:
                raise KeyboardInterrupt

        return sink

    for n in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), images, plan, checkpoint=checkpoint, on_event=stop_after(n))
    module = fresh(7)  # what it begins with no longer matters
    events: list[Event] = []
    result = train(module, images, plan, checkpoint=checkpoint, on_event=events.append)
    assert same(state_of(module), state_of(whole))
    assert result.losses == expected.losses
    assert result.valid_accuracy_pct == expected.valid_accuracy_pct
    assert [event.done for event in events] == [4, 5, 6]
    finished = fresh(3)
    assert train(finished, images, plan, checkpoint=checkpoint).losses == result.losses
    assert same(state_of(finished), state_of(module))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    images, checkpoint = striped(), tmp_path / "c"
    plan = replace(PLAN, epochs=1)
    train(fresh(), images, plan, checkpoint=checkpoint, identity="a")
    others = (
        (images, replace(plan, seed=1), "a"),
        (images, plan, "b"),
        (striped(seed=1), plan, "a"),
    )
    for data, other, identity in others:
        with pytest.raises(ModelError, match="another training") as caught:
            train(fresh(), data, other, checkpoint=checkpoint, identity=identity)
        assert caught.value.code == "other_checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        train(fresh(), images, plan, checkpoint=checkpoint, identity="a")
    assert caught.value.code == "checkpoint_damaged"


def test_a_loss_that_explodes_is_said() -> None:
    with pytest.raises(ModelError, match=r"the loss is (nan|inf)") as caught:
        train(fresh(), striped(), replace(PLAN, learning_rate=1e30))
    assert caught.value.code == "diverged"


def test_plans() -> None:
    plan = default_plan(TASKS["cifar10"], epochs=3, cutout=16, seed=None)
    assert (plan.epochs, plan.batch_size, plan.padding, plan.flip) == (3, 256, 4, True)
    assert (plan.cutout, plan.seed) == (16, 0)
    digits = default_plan(TASKS["digits"])
    assert (digits.padding, digits.flip) == (1, False)
    with pytest.raises(ModelError, match="epochs must be at least 1"):
        default_plan(TASKS["digits"], epochs=0)
