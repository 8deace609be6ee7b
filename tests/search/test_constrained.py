"""Searches under latency bounds: conformance, bounds kept, and the best of each."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import TinySpace, conv_cost, normalised_hv

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.constrained import sine_bounds
from hwnas_sdk.search.metad2a import MetaD2aSearcher
from hwnas_sdk.search.ofa import OfaSearcher
from hwnas_sdk.search.random import RandomSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.searcher import SearcherConformance, toy_scores


def latency_of(genotypes):
    return conv_cost(genotypes)[:, 1]


def error_of(genotypes):
    return conv_cost(genotypes)[:, 0]


class TestOfa(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: OfaSearcher(
            space, cost=lambda genotypes: toy_scores(genotypes)[:, 1], seed=seed
        )


class TestMetaD2a(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: MetaD2aSearcher(
            space,
            score=lambda genotypes: toy_scores(genotypes)[:, 0],
            cost=lambda genotypes: toy_scores(genotypes)[:, 1],
            seed=seed,
        )


@pytest.fixture(scope="module")
def space():
    return get_space("nasbench201")


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3), st.integers(1, 40))
def test_bounds_rise_from_low_to_high(low, span, n):
    bounds = sine_bounds(low, low + span, n)
    assert bounds.shape == (n,)
    assert (np.diff(bounds) >= 0).all()
    assert bounds[-1] == low + span
    assert bounds[0] >= low


def test_bounds_are_those_of_the_released_code():
    theta = np.linspace(1e-6, np.pi / 2 - 1e-6, 24)
    np.testing.assert_allclose(sine_bounds(2.0, 6.0), 2 + 4 * np.sin(theta), atol=1e-9)
    with pytest.raises(ValueError, match="between"):
        sine_bounds(2.0, 1.0)


def test_ofa_beats_random_at_equal_evaluations(space):
    volumes = {}
    for searcher in (OfaSearcher(space, cost=latency_of, seed=0), RandomSearcher(space, seed=0)):
        result = search(space, conv_cost, searcher, 10, n_per_generation=48)
        assert result.n_evaluations == 480
        volumes[searcher.name] = normalised_hv(space, result.front.values)
    assert volumes["ofa"] > volumes["random"]
    assert volumes["ofa"] > 0.99


def test_ofa_finds_the_best_under_one_bound(space):
    bound = 6.0
    searcher = OfaSearcher(space, cost=latency_of, bounds=np.array([bound]), seed=0)
    for _ in range(12):
        genotypes = searcher.ask(25)
        assert (latency_of(genotypes) <= bound).all()
        searcher.tell(genotypes, conv_cost(genotypes))
    everything = conv_cost(space.all_genotypes()[space.live_mask()])
    best = everything[everything[:, 1] <= bound, 0].min()
    found = searcher.best_per_bound()
    assert len(found) == 1
    assert found.values[0, 0] < 1.05 * best


def test_parents_are_the_best_that_keep_the_bound(space):
    searcher = OfaSearcher(
        space, cost=latency_of, bounds=np.array([5.0, 9.0]), population=8, seed=0
    )
    genotypes = searcher.ask(60)
    searcher.tell(genotypes, conv_cost(genotypes))
    for bound, parents in zip(searcher.bounds, searcher._parents(), strict=True):
        keeps = latency_of(genotypes) <= bound
        assert (latency_of(parents) <= bound).all()
        np.testing.assert_array_equal(
            error_of(parents), np.sort(error_of(genotypes[keeps]))[: len(parents)]
        )
        assert len(parents) == 2


@settings(max_examples=25)
@given(
    cut=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["ofa", "metad2a"]),
)
def test_bounds_are_kept_and_nothing_is_asked_twice(cut, sizes, seed, kind):
    space = TinySpace()

    def cost(genotypes):
        return genotypes[:, [1, 3]].sum(axis=1).astype(float)

    bounds = np.array([0.0, float(cut)])
    searcher = (
        OfaSearcher(space, cost=cost, bounds=bounds, seed=seed)
        if kind == "ofa"
        else MetaD2aSearcher(
            space, score=lambda g: g[:, 0].astype(float), cost=cost, bounds=bounds, tries=2,
            n_candidates=9, seed=seed,
        )
    )  # fmt: skip
    live = np.array(list(product((1, 2), range(3), (0,), range(3))))
    left = int((cost(live) <= cut).sum())
    seen = set()
    for n in sizes:
        asked = searcher.ask(n)
        assert len(asked) == min(n, left - len(seen))
        assert (cost(asked) <= cut).all()
        assert (asked[:, 0] > 0).all()
        rows = set(map(tuple, asked.tolist()))
        assert len(rows) == len(asked)
        assert not rows & seen
        seen |= rows
        if len(asked) == 0:
            break
        searcher.tell(asked, asked[:, [1, 3]].astype(float))
    best = searcher.best_per_bound()
    assert len(best) <= 2
    if len(best):
        assert cost(best.genotypes)[0] <= cut


def test_metad2a_takes_the_first_three_that_fit(space):
    """By hand: the list in predicted order, its first three within each bound, the truly best."""
    bounds = np.array([4.0, 7.0, 30.0])
    searcher = MetaD2aSearcher(
        space, score=lambda g: -latency_of(g), cost=latency_of, bounds=bounds, n_candidates=50,
        seed=2,
    )  # fmt: skip
    asked = searcher.ask(len(searcher.shortlist))
    np.testing.assert_array_equal(asked, searcher.shortlist)
    searcher.tell(asked, conv_cost(asked))
    # The score prefers the slowest: each bound's choices are the three slowest that keep it.
    candidates = np.array([list(genes) for genes in searcher._rows])
    latencies = latency_of(candidates)
    expected = []
    for bound in bounds:
        fitting = candidates[latencies <= bound]
        three = fitting[np.argsort(-latency_of(fitting), kind="stable")[:3]]
        expected.append(error_of(three).min())
        assert {tuple(g) for g in three.tolist()} <= {tuple(g) for g in asked.tolist()}
    np.testing.assert_allclose(searcher.best_per_bound().values[:, 0], expected)
    assert len(asked) <= 9
    # First choices of all bounds come before any second one.
    assert latency_of(asked[:3]).max() == latencies.max()


def test_a_bound_nothing_keeps_has_no_answer(space):
    searcher = OfaSearcher(space, cost=latency_of, bounds=np.array([0.5, 9.0]), seed=0)
    assert len(searcher.best_per_bound()) == 0
    genotypes = searcher.ask(30)
    searcher.tell(genotypes, conv_cost(genotypes), violation=np.ones(30))
    assert len(searcher.best_per_bound()) == 0
    genotypes = searcher.ask(30)
    searcher.tell(genotypes, conv_cost(genotypes))
    assert len(searcher.best_per_bound()) == 1


def test_impossible_bounds_are_asked_nothing(space):
    searcher = OfaSearcher(space, cost=latency_of, bounds=np.array([0.5]), seed=0)
    assert len(searcher.ask(5)) == 0


def test_wrong_arguments_are_refused(space):
    def ofa(**changes):
        return OfaSearcher(space, **{"cost": latency_of, "seed": 0, **changes})

    for changes, message in (
        ({"target": 2}, "target"),
        ({"bounds": np.array([])}, "bounds"),
        ({"bounds": np.array([np.nan])}, "bounds"),
        ({"population": 0}, "population"),
        ({"parents_share": 0.0}, "parents_share"),
        ({"gene_probability": 1.5}, "gene_probability"),
    ):
        with pytest.raises(ValueError, match=message):
            ofa(**changes)
    with pytest.raises(ValueError, match="tries"):
        MetaD2aSearcher(space, score=error_of, cost=latency_of, tries=0, seed=0)
    with pytest.raises(DataError, match="costs"):
        ofa(cost=conv_cost)
    with pytest.raises(DataError, match="scores"):
        MetaD2aSearcher(space, score=lambda g: np.full(len(g), np.nan), cost=latency_of, seed=0)
