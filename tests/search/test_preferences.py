"""Preference vectors: on the simplex, where the papers put them."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.search.preferences import circle, das_dennis, dirichlet, equidistant


def test_two_objectives_are_spread_from_corner_to_corner():
    preferences = equidistant()
    assert preferences.shape == (24, 2)
    j = np.arange(24)
    np.testing.assert_allclose(preferences, np.column_stack([1 - j / 23, j / 23]), atol=1e-15)


def test_three_objectives_take_the_largest_lattice_that_fits():
    assert equidistant(3).shape == (21, 3)
    assert equidistant(3, 28).shape == (28, 3)
    assert equidistant(3, 27).shape == (21, 3)
    assert equidistant(3, 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_the_circle_is_that_of_the_released_code():
    preferences = circle()
    rows = [100, 100, 99, 98, 96, 94, 92, 89, 85, 82, 78, 73, 68, 63, 58, 52, 46, 40, 33, 27, 20,
            14, 7, 0]  # fmt: skip
    assert np.round(100 * preferences[:, 0]).astype(int).tolist() == rows
    np.testing.assert_allclose(np.linalg.norm(preferences, axis=1), 1.0)


@given(st.integers(1, 4), st.integers(1, 7))
def test_lattices_are_complete_and_on_the_simplex(m, divisions):
    points = das_dennis(m, divisions)
    assert points.shape == (comb(divisions + m - 1, m - 1), m)
    assert (points >= 0).all()
    np.testing.assert_allclose(points.sum(axis=1), 1.0)
    steps = np.rint(points * divisions).astype(int)
    np.testing.assert_allclose(steps / divisions, points)
    assert len(set(map(tuple, steps.tolist()))) == len(points)


@given(st.integers(2, 4), st.integers(4, 60))
def test_equidistant_preferences_sum_to_one(m, n):
    preferences = equidistant(m, n)
    assert m <= len(preferences) <= n
    assert preferences.shape[1] == m
    np.testing.assert_allclose(preferences.sum(axis=1), 1.0)
    # Every corner is there: each objective alone is somebody's preference.
    assert (preferences.max(axis=0) == 1.0).all()


@given(st.integers(0, 20), st.integers(1, 4), st.floats(0.1, 5), st.integers(0, 99))
def test_dirichlet_draws_are_on_the_simplex(n, m, concentration, seed):
    drawn = dirichlet(n, m, np.random.default_rng(seed), concentration=concentration)
    assert drawn.shape == (n, m)
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)


def test_uniform_draws_have_the_simplex_centre_as_mean():
    drawn = dirichlet(4000, 3, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 18, atol=0.005)


@pytest.mark.parametrize(
    "call",
    [
        lambda: equidistant(1),
        lambda: equidistant(3, 2),
        lambda: circle(1),
        lambda: das_dennis(2, 0),
        lambda: dirichlet(1, 2, np.random.default_rng(0), concentration=0.0),
    ],
)
def test_impossible_preferences_are_refused(call):
    with pytest.raises(ValueError, match=r"no |needs|must be"):
        call()
