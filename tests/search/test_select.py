"""Choosing candidates, against brute force and against what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk import pareto
from hwnas_sdk.search._gain import Staircases, Targets
from hwnas_sdk.search.select import choose_candidates


def curve(n, rng):
    """Points on a convex front plus dominated ones."""
    x = rng.random(n)
    slack = np.where(rng.random(n) < 0.3, 0.0, rng.random(n))
    return np.column_stack([x, (1 - np.sqrt(x)) + slack])


def greedy_by_hypervolume(points, k):
    front = np.flatnonzero(pareto.non_dominated_mask(points))
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / (high - low)
    chosen = []
    for _ in range(k):
        rest = [i for i in front if i not in chosen]
        chosen.append(max(rest, key=lambda i: pareto.hypervolume(scaled[[*chosen, i]], np.ones(2))))
    return chosen


def test_exact_predictions_give_the_greedy_hypervolume_subset():
    rng = np.random.default_rng(0)
    for _ in range(10):
        points = curve(200, rng)
        assert choose_candidates(points, None, 8).tolist() == greedy_by_hypervolume(points, 8)


def test_fills_up_from_the_next_fronts():
    # Two fronts of three, the second shifted.
    first = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0]])
    points = np.concatenate([first, first + 0.5, [[5.0, 5.0]]])
    chosen = choose_candidates(points, None, 6).tolist()
    assert set(chosen[:3]) == {0, 1, 2}
    assert set(chosen) == {0, 1, 2, 3, 4, 5}
    assert sorted(choose_candidates(points, None, 7).tolist()) == list(range(7))
    assert sorted(choose_candidates(points, None, 50).tolist()) == list(range(7))


@pytest.mark.parametrize("with_sd", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_always_k_distinct_for_any_number_of_objectives(m, with_sd):
    rng = np.random.default_rng(m)
    values = rng.random((400, m)) + 0.1
    sd = 0.1 * rng.random((400, m)) if with_sd else None
    chosen = choose_candidates(values, sd, 24, kin=rng.integers(0, 5, (400, 6)))
    assert len(chosen) == len(set(chosen.tolist())) == 24


def test_three_objectives_reach_most_of_the_volume():
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(500, 3)))
    values /= np.linalg.norm(values, axis=1)[:, None]
    values = 1.0 - values * rng.uniform(0.7, 1.0, (500, 1))  # around a concave shell
    reference = np.ones(3)
    chosen = choose_candidates(values, None, 24, reference)
    share = pareto.hypervolume(values[chosen], reference) / pareto.hypervolume(values, reference)
    random_share = pareto.hypervolume(values[:24], reference) / pareto.hypervolume(
        values, reference
    )
    assert share > 0.9 > random_share


def test_limits_groups_and_known_points():
    rng = np.random.default_rng(1)
    points = curve(300, rng)
    sd = np.full_like(points, 0.05)
    for spread in (None, sd):
        feasible = points[:, 0] > 0.3
        chosen = choose_candidates(points, spread, 10, feasible=feasible)
        assert len(chosen) == 10
        assert feasible[chosen].all()

        groups = np.arange(300) % 12
        chosen = choose_candidates(points, spread, 20, group=lambda i: int(groups[i]))  # noqa: B023
        assert sorted(groups[chosen].tolist()) == list(range(12))

    known = points[points[:, 0] < 0.5]  # that half is already attained
    chosen = choose_candidates(points, None, 5, known=known)
    assert (points[chosen, 0] >= 0.5).all()
    assert choose_candidates(points, None, 5, feasible=np.zeros(300, dtype=bool)).size == 0
    assert choose_candidates(points, None, 0).size == 0
    assert choose_candidates(np.empty((0, 2)), None, 5).size == 0


def test_known_points_that_cannot_be_improved_still_leave_k():
    points = curve(50, np.random.default_rng(2))
    chosen = choose_candidates(points, None, 10, known=np.full((1, 2), -1.0))
    assert len(set(chosen.tolist())) == 10


def test_seeded():
    rng = np.random.default_rng(3)
    points, sd = curve(200, rng), np.full((200, 2), 0.2)
    first = choose_candidates(points, sd, 10, seed=1)
    np.testing.assert_array_equal(first, choose_candidates(points, sd, 10, seed=1))
    assert not np.array_equal(first, choose_candidates(points, sd, 10, seed=2))


@pytest.mark.slow
def test_knowing_the_uncertainty_pays():
    """Where predictions err alike among kin, expected hypervolume beats trusting the means."""
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kin = rng.integers(0, 4, (400, 5))
        covariance = np.exp(-(kin[:, None] != kin[None]).sum(axis=2) / 5.0)
        error = np.linalg.cholesky(covariance + 1e-6 * np.eye(400)) @ rng.normal(size=(400, 2))
        predicted = 1.0 + curve(400, rng)
        sd = np.full_like(predicted, 0.15)
        true = predicted + sd * error
        reference = true.max(axis=0)

        def volume(rows, true=true, reference=reference):
            return pareto.hypervolume(true[rows], reference)

        trusting = volume(choose_candidates(predicted, None, 12))
        careful = volume(choose_candidates(predicted, sd, 12, kin=kin))
        gains.append((careful - trusting) / volume(np.arange(400)))
    assert np.mean(gains) > 0.01


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        choose_candidates(np.array([[np.nan, 1.0]]), None, 1)
    with pytest.raises(ValueError, match="shape"):
        choose_candidates(np.ones(3), None, 1)
    with pytest.raises(ValueError, match="sd"):
        choose_candidates(np.ones((3, 2)), np.ones((3, 1)), 1)
    with pytest.raises(ValueError, match="sd"):
        choose_candidates(np.ones((3, 2)), -np.ones((3, 2)), 1)
    with pytest.raises(ValueError, match="cannot choose"):
        choose_candidates(np.ones((3, 2)), None, -1)


def test_staircases_equal_hypervolume_differences():
    rng = np.random.default_rng(4)
    for _ in range(20):
        n_draws = 3
        gain = Staircases(n_draws)
        fronts = [[] for _ in range(n_draws)]
        for _ in range(8):
            point = rng.integers(-1, 12, (n_draws, 2)) / 10.0  # ties, and points outside the box
            before = [pareto.hypervolume(np.reshape(f, (-1, 2)), np.ones(2)) for f in fronts]
            after = [
                pareto.hypervolume(np.array([*f, p]), np.ones(2))
                for f, p in zip(fronts, point, strict=True)
            ]
            expected = np.mean(np.subtract(after, before))
            assert gain.gains(point[None])[0] == pytest.approx(expected, abs=1e-12)
            gain.add(point)
            for front, row in zip(fronts, point, strict=True):
                front.append(row)


def test_targets_approach_the_exact_gain():
    rng = np.random.default_rng(5)
    points = rng.random((20, 4, 2))
    exact, sampled = Staircases(4), Targets(4, np.zeros(2))
    for point in points[:5]:
        exact.add(point)
        sampled.add(point)
    np.testing.assert_allclose(sampled.gains(points), exact.gains(points), atol=0.01)
