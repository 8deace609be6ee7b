"""Expected ranks of beliefs that were not learned from labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwnas_sdk import pareto
from hwnas_sdk.predictors.expected_rank import ExpectedRanks, joint_draws
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.standing import (
    SHORTLIST,
    Standing,
    dominated_shares,
    least_listed,
    rank_scores,
)


def population(n=300, m=2, seed=0):
    means = np.random.default_rng(seed).normal(size=(n, m))
    means[:, 0] -= means[:, 1]
    return means


@pytest.mark.parametrize("m", [2, 3])
def test_without_doubt_it_is_the_rank(m):
    means = population(m=m)
    ranked = ExpectedRanks.of(means, np.zeros_like(means), seed=0, draws=2)
    np.testing.assert_allclose(ranked.expected, pareto.ranks(means))


def test_the_expectation_is_over_the_draws():
    means = population()
    sds = np.full_like(means, 0.3)
    ranked = ExpectedRanks.of(means, sds, seed=4, draws=8)
    drawn = joint_draws(means, sds, np.eye(2), seed=4, draws=8)
    np.testing.assert_allclose(
        ranked.expected, np.mean([pareto.ranks(points) for points in drawn], axis=0)
    )
    assert not np.allclose(ranked.expected, pareto.ranks(means))
    other = ExpectedRanks.of(means, sds, seed=5, draws=8)
    assert not np.array_equal(other.expected, ranked.expected)


def test_of_one_front_the_sure_come_before_the_doubtful():
    means = np.concatenate([population(200), [[-9999.0, 20.0], [20.0, -200.0]]])
    sds = np.zeros_like(means)
    sds[-1] = 300.0
    ranked = ExpectedRanks.of(means, sds, seed=0, draws=64)
    assert ranked.expected[-2] == 0.0 < ranked.expected[-1]


def test_outsiders_rank_as_if_they_joined():
    means = population(400)
    sds = np.full_like(means, 0.1)
    ranked = ExpectedRanks.of(means[:300], sds[:300], seed=0, draws=16)
    others = ranked.of_others(means[300:], sds[300:])
    assert kendall(pareto.ranks(means)[300:], others) > 0.8
    # Nothing else that is asked changes a rank.
    np.testing.assert_allclose(ranked.of_others(means[303:305], sds[303:305]), others[3:5])


def counted(points, among):
    """Share of `among` that dominates each point, pair by pair."""
    below = (among[None] <= points[:, None]).all(axis=2)
    return (below & (among[None] < points[:, None]).any(axis=2)).mean(axis=1)


@given(
    hnp.arrays(
        np.int64,
        st.tuples(st.integers(1, 40), st.integers(2, 3)),
        elements=st.integers(-5, 5),
    )
)
def test_dominating_shares_of_few_values_are_exact(points):
    values = points.astype(np.float64)
    np.testing.assert_allclose(dominated_shares(values, values), counted(values, values))
    others = np.concatenate([values - 0.5, values + 0.5, values * 0.5])
    np.testing.assert_allclose(dominated_shares(others, values), counted(others, values))


@pytest.mark.parametrize(("m", "width"), [(2, 1 / 256), (3, 1 / 40)])
def test_dominating_shares_are_as_fine_as_the_grid(m, width):
    means = population(3000, m)
    others = population(50, m, seed=1)
    found = dominated_shares(others, means)
    assert np.abs(found - counted(others, means)).max() < m * width
    assert dominated_shares(others - 1e6, means).max() == 0.0
    np.testing.assert_allclose(dominated_shares(others[5:7], means), found[5:7])


def test_half_of_the_order_is_the_rank_and_half_the_share():
    everyone = Standing(np.array([0.0, 2.0, 4.0]), np.array([0.0, 0.2, 0.1]), np.zeros(3))
    # Ranks have mean 2 and shares .1: a share counts 20 ranks.
    np.testing.assert_allclose(everyone.order(everyone), [0.0, 3.0, 3.0])
    one_front = Standing(np.zeros(2), np.zeros(2), np.ones(2))
    np.testing.assert_array_equal(one_front.order(one_front), [0.0, 0.0])


def test_the_likely_front_comes_first_and_in_order():
    expected, shares = np.array([0.5, 0.2, 9.0, 3.0]), np.array([1.0, 1.0, 0.5, 0.25])
    scores = rank_scores(expected, shares, 0.5, 4)
    assert (scores[:3] > 0).all()
    assert scores[1] > scores[0] > scores[2] > scores[3] == -3.0


def test_the_shortlist_is_a_share_of_the_population_and_never_the_hopeless():
    shares = np.zeros(1000)
    assert least_listed(shares, 64) == 1 / 64
    shares[:300] = np.arange(300) / 300
    least = least_listed(shares, 64)
    assert SHORTLIST * 1000 <= (shares >= least).sum() <= SHORTLIST * 1000 + 1


def test_nobody_to_rank_is_refused():
    with pytest.raises(ValueError, match="cannot rank"):
        ExpectedRanks.of(np.empty((0, 2)), np.empty((0, 2)), seed=0)
