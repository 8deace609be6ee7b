"""pareto.py against brute force, on random sets full of ties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwnas_sdk import pareto


def brute_dominates(u, v):
    return bool((u <= v).all() and (u < v).any())


def brute_ranks(points):
    left = set(range(len(points)))
    result = np.zeros(len(points), dtype=int)
    rank = 0
    while left:
        front = {i for i in left if not any(brute_dominates(points[j], points[i]) for j in left)}
        for i in front:
            result[i] = rank
        left -= front
        rank += 1
    return result


def brute_hypervolume(points, reference):
    """Sum over the cells of the grid spanned by all coordinates."""
    inside = [p for p in points if (p < reference).all()]
    if not inside:
        return 0.0
    axes = [
        sorted({float(p[k]) for p in inside} | {float(reference[k])}) for k in range(len(reference))
    ]
    total = 0.0
    for corner in itertools.product(*(range(len(axis) - 1) for axis in axes)):
        low = np.array([axes[k][i] for k, i in enumerate(corner)])
        high = np.array([axes[k][i + 1] for k, i in enumerate(corner)])
        if any((p <= low).all() for p in inside):
            total += float(np.prod(high - low))
    return total


def brute_mean_min(over, to, distance):
    return float(np.mean([min(distance(a, b) for b in to) for a in over]))


def random_sets(n_sets, *, n_max=30, m_values=(2, 3, 4)):
    """Half on a small grid (ties and duplicates everywhere), half continuous; any sign."""
    rng = np.random.default_rng(0)
    for i in range(n_sets):
        n, m = int(rng.integers(1, n_max)), int(rng.choice(m_values))
        if i % 2:
            yield rng.integers(-3, 4, size=(n, m)).astype(float)
        else:
            yield rng.normal(size=(n, m))


def test_ranks_and_mask_equal_brute_force():
    for points in random_sets(200):
        expected = brute_ranks(points)
        np.testing.assert_array_equal(pareto.ranks(points), expected)
        np.testing.assert_array_equal(pareto.non_dominated_mask(points), expected == 0)


def test_hypervolume_equals_brute_force():
    for points in random_sets(60, n_max=9, m_values=(2, 3)):
        reference = np.quantile(points, 0.8, axis=0)  # some points lie outside, some on the edge
        assert pareto.hypervolume(points, reference) == pytest.approx(
            brute_hypervolume(points, reference), abs=1e-9
        )


def test_distances_equal_brute_force():
    sets = list(random_sets(200, m_values=(3,)))
    for found, true in itertools.pairwise(sets):

        def euclid(a, b):
            return float(np.linalg.norm(a - b))

        def worse_by(s, z):
            return float(np.linalg.norm(np.maximum(s - z, 0)))

        expected = {
            pareto.gd: brute_mean_min(found, true, euclid),
            pareto.igd: brute_mean_min(true, found, euclid),
            pareto.gd_plus: brute_mean_min(found, true, worse_by),
            pareto.igd_plus: brute_mean_min(true, found, lambda z, s: worse_by(s, z)),
        }
        for indicator, value in expected.items():
            assert indicator(found, true) == pytest.approx(value, abs=1e-12), indicator.__name__


@given(
    st.lists(st.tuples(*[st.integers(-5, 5)] * 3), min_size=1, max_size=25),
    st.floats(0.1, 3),
    st.floats(-4, 4),
)
def test_ranks_are_invariant_to_increasing_transforms(rows, scale, shift):
    points = np.array(rows, dtype=float)
    bent = np.column_stack(
        [np.exp(points[:, 0] * scale), points[:, 1] ** 3 + shift, points[:, 2] * scale - shift]
    )
    np.testing.assert_array_equal(pareto.ranks(bent), pareto.ranks(points))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_duplicates_share_a_rank(rows):
    points = np.array(rows, dtype=float)
    doubled = pareto.ranks(np.concatenate([points, points]))
    np.testing.assert_array_equal(doubled[: len(points)], doubled[len(points) :])
    np.testing.assert_array_equal(doubled[: len(points)], pareto.ranks(points))


def test_perfect_front_has_no_distance():
    front = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    for indicator in (pareto.gd, pareto.igd, pareto.gd_plus, pareto.igd_plus):
        assert indicator(front, front) == 0.0
    dominating = front - 0.1
    assert pareto.gd_plus(dominating, front) == pareto.igd_plus(dominating, front) == 0.0
    assert pareto.gd(dominating, front) > 0.0


def test_known_volumes():
    assert pareto.hypervolume([[0.0, 0.0]], [1.0, 2.0]) == 2.0
    assert pareto.hypervolume([[0.0, 0.5], [0.5, 0.0]], [1.0, 1.0]) == pytest.approx(0.75)
    assert pareto.hypervolume([[0.0, 0.0, 0.0]], [1.0, 1.0, 3.0]) == 3.0
    assert pareto.hypervolume([[1.0, 0.0], [np.inf, 0.0]], [1.0, 1.0]) == 0.0
    assert pareto.hypervolume(np.empty((0, 2)), [1.0, 1.0]) == 0.0


def test_infinity_is_the_worst_rank():
    np.testing.assert_array_equal(
        pareto.ranks([[1.0, np.inf], [1.0, 2.0], [np.inf, np.inf]]), [1, 0, 2]
    )


def test_empty_sets():
    assert pareto.ranks(np.empty((0, 2))).shape == (0,)
    assert pareto.non_dominated_mask(np.empty((0, 2))).shape == (0,)
    with pytest.raises(ValueError, match="not empty"):
        pareto.gd(np.empty((0, 2)), [[1.0, 1.0]])


@pytest.mark.parametrize(
    "call",
    [
        pareto.ranks,
        pareto.non_dominated_mask,
        lambda bad: pareto.hypervolume(bad, [1.0, 1.0]),
        lambda bad: pareto.hypervolume([[0.0, 0.0]], bad[0]),
        lambda bad: pareto.gd(bad, [[0.0, 0.0]]),
        lambda bad: pareto.igd([[0.0, 0.0]], bad),
        lambda bad: pareto.gd_plus(bad, bad),
        lambda bad: pareto.igd_plus(bad, bad),
    ],
)
def test_nan_is_refused(call):
    with pytest.raises(ValueError, match="NaN"):
        call(np.array([[0.0, np.nan], [1.0, 1.0]]))


def test_wrong_shapes_and_unbounded_values_are_refused():
    with pytest.raises(ValueError, match="shape"):
        pareto.ranks([1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        pareto.hypervolume([[1.0, 2.0]], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="objectives"):
        pareto.igd([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="infinite"):
        pareto.hypervolume([[-np.inf, 0.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        pareto.gd([[np.inf, 0.0]], [[0.0, 0.0]])


@given(
    hnp.arrays(
        np.int64,
        st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(2, 3)),
        elements=st.integers(-3, 3),
    )
)
def test_ranks_of_many_sets_are_those_of_each(sets):
    points = sets.astype(np.float64)
    found = pareto.ranks_of_sets(points)
    assert found.shape == sets.shape[:2]
    for own, ranks in zip(points, found, strict=True):
        np.testing.assert_array_equal(ranks, pareto.ranks(own))


def test_large_sets_rank_alike():
    points = np.random.default_rng(0).normal(size=(2, 100, 2))
    found = pareto.ranks_of_sets(points)
    np.testing.assert_array_equal(found, [pareto.ranks(own) for own in points])
