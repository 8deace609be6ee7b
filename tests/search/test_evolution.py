"""LEMONADE, regularised evolution and local search: conformance and what each is about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import TinySpace, conv_cost, normalised_hv

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.lemonade import LemonadeSearcher, log_sparsity
from hwnas_sdk.search.local_search import LocalSearcher
from hwnas_sdk.search.mo_rea import MoReaSearcher
from hwnas_sdk.search.population import crowding_distance, places, tournament
from hwnas_sdk.search.random import RandomSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.searcher import SearcherConformance, toy_scores


class TestLemonade(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: LemonadeSearcher(
            space, cheap=lambda genotypes: toy_scores(genotypes)[:, 1:], seed=seed
        )


class TestMoRea(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: MoReaSearcher(space, population=20, tournament_size=5, seed=seed)


class TestLocalSearch(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: LocalSearcher(space, seed=seed)


@pytest.fixture(scope="module")
def space():
    return get_space("nasbench201")


def latency_of(genotypes):
    return conv_cost(genotypes)[:, 1:]


SEARCHERS = {
    "lemonade": lambda space, seed: LemonadeSearcher(space, cheap=latency_of, seed=seed),
    "mo-rea": lambda space, seed: MoReaSearcher(space, population=40, seed=seed),
    "local-search": lambda space, seed: LocalSearcher(space, seed=seed),
}


@pytest.mark.parametrize("name", SEARCHERS)
def test_beats_random_at_equal_evaluations(space, name):
    volumes = {}
    for searcher in (SEARCHERS[name](space, 0), RandomSearcher(space, seed=0)):
        result = search(space, conv_cost, searcher, 10, n_per_generation=40)
        assert result.n_evaluations == 400
        volumes[searcher.name] = normalised_hv(space, result.front.values)
    assert volumes[name] > volumes["random"]
    assert volumes[name] > 0.99


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(SEARCHERS)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    seed=st.integers(0, 99),
    infeasible=st.sampled_from([0, 1, 2]),
)
def test_small_spaces_are_asked_without_repetition(name, sizes, seed, infeasible):
    """Whatever is asked and told: live, never twice, and no fewer than there are."""
    space = TinySpace()
    searcher = {
        "lemonade": lambda: LemonadeSearcher(
            space, cheap=lambda g: g[:, 1:].astype(float), seed=seed
        ),
        "mo-rea": lambda: MoReaSearcher(space, population=5, tournament_size=3, seed=seed),
        "local-search": lambda: LocalSearcher(space, seed=seed),
    }[name]()  # fmt: skip
    seen = set()
    for n in sizes:
        asked = searcher.ask(n)
        assert len(asked) == min(n, 18 - len(seen))
        rows = set(map(tuple, asked.tolist()))
        assert len(rows) == len(asked)
        assert not rows & seen
        assert (asked[:, 0] > 0).all()
        seen |= rows
        if len(asked) == 0:
            break
        violation = np.where(asked[:, 3] < infeasible, 0.5, 0.0)
        searcher.tell(asked, asked[:, [1, 3]].astype(float), violation=violation)


@pytest.mark.parametrize("name", ["lemonade", "local-search"])
def test_members_are_the_non_dominated_set(space, name):
    searcher = SEARCHERS[name](space, 1)
    for _ in range(3):
        genotypes = searcher.ask(20)
        searcher.tell(genotypes, conv_cost(genotypes))
    everything = searcher.evaluated.values
    front = everything[pareto.non_dominated_mask(everything)]
    np.testing.assert_array_equal(
        np.unique(searcher.members.values, axis=0), np.unique(front, axis=0)
    )


def test_members_violate_least_while_nothing_is_feasible(space):
    searcher = LocalSearcher(space, seed=1)
    genotypes = searcher.ask(20)
    searcher.tell(genotypes, conv_cost(genotypes), violation=1.0 + np.arange(20) // 4)
    np.testing.assert_array_equal(searcher.members.genotypes, genotypes[:4])


def test_local_search_asks_neighbours_first(space):
    searcher = LocalSearcher(space, seed=3)
    genotypes = searcher.ask(10)
    searcher.tell(genotypes, conv_cost(genotypes))
    members = searcher.members.genotypes
    steps = (searcher.ask(10)[:, None, :] != members[None, :, :]).sum(axis=2)
    assert (steps.min(axis=1) == 1).all()


def test_regularised_evolution_forgets_the_oldest(space):
    searcher = MoReaSearcher(space, population=15, seed=0)
    for _ in range(3):
        genotypes = searcher.ask(10)
        searcher.tell(genotypes, conv_cost(genotypes))
    np.testing.assert_array_equal(searcher.members.genotypes, searcher.evaluated.genotypes[-15:])
    parents = searcher.members.genotypes
    steps = (searcher.ask(5)[:, None, :] != parents[None, :, :]).sum(axis=2).min(axis=1)
    assert (steps >= 1).all()
    assert (steps <= 3).all()


def test_lemonade_goes_where_the_cheap_objective_is_sparse(space):
    """Members crowd at low latency but for a few; children of the few are asked more than that."""
    searcher = LemonadeSearcher(space, cheap=latency_of, children=20, seed=0)
    genotypes = searcher.ask(300)
    searcher.tell(genotypes, conv_cost(genotypes))
    members = latency_of(searcher.members.genotypes)
    sparsity = log_sparsity(members)
    children = np.unique(searcher._breed(400, searcher._children), axis=0)
    asked = searcher.ask(20)
    assert sparsity(latency_of(asked)).mean() > sparsity(latency_of(children)).mean()


def test_sparsity_is_minus_the_log_density():
    """Against the sum of kernels, with Scott's bandwidth, at three points."""
    members = np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 1000.0]
    at = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3000.0]])
    inverse = np.linalg.inv(np.cov(members.T) * 50 ** (-2 / 6))
    gaps = at[:, None, :] - members[None, :, :]
    expected = -np.log(np.exp(-0.5 * np.einsum("nki,ij,nkj->nk", gaps, inverse, gaps)).sum(axis=1))
    found = log_sparsity(members)(at)
    np.testing.assert_allclose(found - found[0], expected - expected[0])


def test_sparsity_of_degenerate_members():
    line = np.arange(10.0)
    for members in (
        np.column_stack([line, 2.0 * line]),  # the second says nothing new
        np.column_stack([np.ones(10), line]),  # the first says nothing
    ):
        values = log_sparsity(members)(members)
        assert np.isfinite(values).all()
        assert values[0] > values[5]
    np.testing.assert_array_equal(log_sparsity(np.ones((4, 2)))(np.zeros((3, 2))), 0.0)
    np.testing.assert_array_equal(log_sparsity(np.ones((1, 1)))(np.zeros((2, 1))), 0.0)


def test_cheap_objectives_must_be_numbers(space):
    searcher = LemonadeSearcher(space, cheap=lambda g: np.full((len(g), 1), np.nan), seed=0)
    genotypes = searcher.ask(5)
    with pytest.raises(DataError, match="finite"):
        searcher.tell(genotypes, conv_cost(genotypes))


def test_crowding_by_hand():
    values = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding_distance(values), [np.inf, 1.5, 1.5, np.inf])
    assert crowding_distance(values[:0]).shape == (0,)
    np.testing.assert_array_equal(crowding_distance(np.ones((3, 2))), 0.0)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_tournaments_prefer_the_better(standings, size):
    standing = places(np.argsort(standings, kind="stable"))
    rng = np.random.default_rng(0)
    winners = tournament(standing, size, 50, rng)
    assert ((winners >= 0) & (winners < len(standings))).all()
    assert standing[winners].mean() <= standing.mean() + 4 * (standing.std() + 1e-9) / 7


@pytest.mark.parametrize(
    "make",
    [
        lambda space: MoReaSearcher(space, population=1, seed=0),
        lambda space: MoReaSearcher(space, tournament_size=0, seed=0),
        lambda space: LemonadeSearcher(space, cheap=latency_of, children=0, seed=0),
    ],
)
def test_wrong_arguments_are_refused(space, make):
    with pytest.raises(ValueError, match="at least"):
        make(space)
