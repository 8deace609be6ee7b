"""Multilinear extension, normalisation and scalarisation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError  # noqa: E402
from hwnas_sdk.search.modnas.objectives import (  # noqa: E402
    RunningRange,
    multilinear,
    scalarise,
)
from hwnas_sdk.search.modnas.predicted import (  # noqa: E402
    PredictedHardware,
    PredictedResponse,
    scaled_table,
)

SIZES = (3, 2, 4)


def value_of(genotypes):
    """A function with interactions."""
    g = np.asarray(genotypes, dtype=np.float64)
    return 1.0 + g[:, 0] * g[:, 2] - 0.5 * (g[:, 1] - g[:, 0]) ** 2 + np.sin(3 * g[:, 2])


def one_hot(genotypes, c=4):
    return torch.nn.functional.one_hot(torch.as_tensor(genotypes), c).double()


EVERY = np.array(list(itertools.product(*(range(s) for s in SIZES))))


@pytest.fixture
def table():
    return torch.from_numpy(value_of(EVERY).reshape(SIZES))


def test_it_is_the_function_at_one_hot_choices(table):
    np.testing.assert_allclose(multilinear(table, one_hot(EVERY)), value_of(EVERY))


def test_its_gradient_is_the_value_after_one_change(table):
    choices = one_hot(EVERY).requires_grad_()
    (gradient,) = torch.autograd.grad(multilinear(table, choices).sum(), choices)
    for row, genotype in enumerate(EVERY):
        for i, size in enumerate(SIZES):
            for j in range(size):
                changed = genotype.copy()
                changed[i] = j
                assert gradient[row, i, j] == pytest.approx(value_of(changed[None])[0])
            assert not gradient[row, i, size:].any()


def test_relaxed_choices_give_the_expectation(table):
    weights = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    for i, size in enumerate(SIZES):
        weights[:, i, size:] = 0.0
    weights /= weights.sum(dim=2, keepdim=True)
    expected = sum(value_of(g[None])[0] * weights[:, range(3), g].prod(dim=1) for g in EVERY)
    torch.testing.assert_close(multilinear(table, weights), expected)


def test_groups_have_their_own_tables(table):
    tables = torch.stack([table, 2.0 * table])
    choices = one_hot(EVERY[:10])
    both = multilinear(tables, torch.stack([choices, choices]))
    torch.testing.assert_close(both[1], 2.0 * both[0])
    with pytest.raises(ValueError, match="2 decisions"):
        multilinear(table[0], choices)


def test_running_range_scales_and_comes_back():
    scale = RunningRange(window=100)
    first = torch.tensor([3.0], requires_grad=True)
    assert scale.scale(first).item() == 3.0  # one value has no range
    values = scale.scale(torch.linspace(2.0, 4.0, 99))
    assert values.min() == pytest.approx(0.0, abs=0.02)
    assert values.max() == pytest.approx(1.0, abs=0.02)
    again = RunningRange(window=100)
    again.restore(scale.state())
    probe = torch.tensor([2.5])
    assert torch.equal(again.scale(probe), scale.scale(probe))


def test_linear_scalarisation_and_user_prior():
    losses = torch.tensor([[0.2, 0.6], [0.2, 0.1]])
    preferences = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert scalarise(losses, preferences).tolist() == pytest.approx([0.4, 0.15])
    bounded = scalarise(losses, preferences, bounds=torch.tensor(0.3))
    # Within the bound the hardware objective is not minimised any further.
    assert bounded.tolist() == pytest.approx([0.4, 0.1])


def test_cosine_penalty_has_a_gradient():
    """In the released code the vector was detached and the penalty did nothing."""
    losses = torch.tensor([[0.2, 0.6]], requires_grad=True)
    preferences = torch.tensor([[0.5, 0.5]])
    plain = torch.autograd.grad(scalarise(losses, preferences).sum(), losses)[0]
    turned = torch.autograd.grad(scalarise(losses, preferences, cosine=0.1).sum(), losses)[0]
    assert (plain - turned).abs().max() > 1e-3
    # It pulls towards the preference: the smaller loss may grow, the larger has to fall.
    assert turned[0, 0] < plain[0, 0]
    assert turned[0, 1] > plain[0, 1]


def test_chebyshev_prefers_what_no_line_can_reach():
    points = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.6]])  # the last one is in a dent
    half = torch.full((3, 2), 0.5)
    assert scalarise(points, half).argmin() != 2
    assert scalarise(points, half, scalarisation="chebyshev").argmin() == 2


def test_tables_are_scaled_over_what_lives():
    values = np.array([5.0, 1.0, 3.0, 2.0])
    live = np.array([True, False, True, True])
    table = scaled_table(values, live, (2, 2))
    assert table.flatten().tolist() == pytest.approx([1.0, 1.0, 1 / 3, 0.0])
    with pytest.raises(ModelError, match="finite"):
        scaled_table(np.array([np.nan, 1.0]), np.array([True, True]), (2,))


def test_predicted_sides(table):
    choices = torch.stack([one_hot(EVERY[:4]), one_hot(EVERY[4:8])])
    response = PredictedResponse(table)
    torch.testing.assert_close(
        response.task_loss(choices[0], train=False), torch.from_numpy(value_of(EVERY[:4]))
    )
    costs = torch.stack([torch.stack([k * table, -k * table]) for k in (1.0, 2.0, 3.0)])
    found = PredictedHardware(costs)(choices, [2, 0])
    assert found.shape == (2, 4, 2)
    np.testing.assert_allclose(found[0, :, 0], 3.0 * value_of(EVERY[:4]))
    np.testing.assert_allclose(found[1, :, 1], -value_of(EVERY[4:8]))
