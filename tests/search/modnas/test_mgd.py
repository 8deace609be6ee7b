"""Multiple gradient descent: the optimality conditions of the min-norm point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

torch = pytest.importorskip("torch")

from hwnas_sdk.search.modnas.mgd import (  # noqa: E402
    common_direction,
    min_norm_weights,
    two_vector_weight,
)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 8)),
        elements=st.floats(-3, 3, allow_subnormal=False),
    )
)
def test_min_norm_point_meets_kkt(rows):
    """For all t: <g_t, G> >= ||G||^2 (MODNAS, section 3; Desideri 2012)."""
    weights = min_norm_weights(rows @ rows.T, max_iterations=5_000, tolerance=1e-9)
    assert (weights >= 0.0).all()
    assert weights.sum() == pytest.approx(1.0)
    point = weights @ rows
    slack = rows @ point - point @ point
    assert slack.min() >= -2e-3 * max(1.0, float((rows**2).sum(axis=1).max()))


def test_default_iterations_are_enough_for_thirteen_devices():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(200, generator=generator)
    gradients = common + 2.0 * torch.randn(13, 200, generator=generator)
    direction, weights = common_direction(gradients, unit_norm=False)
    assert ((gradients @ direction) >= direction @ direction * (1 - 5e-3)).all()
    assert weights.sum() == pytest.approx(1.0)
    # It is shorter than any single gradient and than their mean.
    assert direction.norm() < min(gradients.norm(dim=1).min(), gradients.mean(dim=0).norm())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, 0.0], [0.0, 1.0], 0.5),  # orthogonal
        ([1.0, 0.0], [3.0, 0.0], 1.0),  # same way: the shorter one
        ([3.0, 0.0], [1.0, 0.0], 0.0),
        ([1.0, 0.0], [-1.0, 0.0], 0.5),  # opposed: stationary
        ([2.0, 0.0], [0.0, 1.0], 0.2),
        ([1.0, 1.0], [1.0, 1.0], 1.0),
    ],
)
def test_two_vectors(first, second, expected):
    a, b = np.array(first), np.array(second)
    assert two_vector_weight(a @ a, a @ b, b @ b) == pytest.approx(expected)


def test_opposed_gradients_are_stationary():
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]])
    direction, _ = common_direction(gradients)
    assert direction.norm() < 1e-6


def test_unit_norm_keeps_small_gradients_in_the_mixture():
    gradients = torch.tensor([[100.0, 0.0], [0.0, 0.01]])
    _, raw = common_direction(gradients, unit_norm=False)
    _, scaled = common_direction(gradients, unit_norm=True)
    assert raw[1] > 0.999  # the min-norm point is the small one
    assert scaled.tolist() == pytest.approx([0.5, 0.5])


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match="square"):
        min_norm_weights(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        min_norm_weights(np.full((2, 2), np.nan))
