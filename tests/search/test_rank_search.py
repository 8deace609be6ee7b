"""Rank-guided evolution: conformance, and that diversity keeps a front spread."""

from __future__ import annotations

import numpy as np
import pytest
from toy_search import conv_cost, normalised_hv

from hwnas_sdk import pareto
from hwnas_sdk.search.rank import RankSearcher, thinned
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.searcher import SearcherConformance


class TestRank(SearcherConformance):
    @pytest.fixture(params=["crowding", "genotype", "none"])
    def make(self, request):
        return lambda space, seed: RankSearcher(
            space, population=20, diversity=request.param, seed=seed
        )


@pytest.fixture(scope="module")
def space():
    return get_space("nasbench201")


@pytest.fixture(scope="module")
def rank_and_latency(space):
    """Scorer: Pareto rank among all live cells, and the latency."""
    genotypes = space.all_genotypes()
    ranks = np.full(len(genotypes), np.inf)
    live = space.live_mask()
    ranks[live] = pareto.ranks(conv_cost(genotypes[live]))
    row_of = {tuple(genes): row for row, genes in enumerate(genotypes.tolist())}

    def scorer(asked):
        rows = [row_of[tuple(genes)] for genes in asked.tolist()]
        return np.column_stack([ranks[rows], conv_cost(asked)[:, 1]])

    return scorer


def volumes(space, scorer, diversity):
    """Hypervolume of the last members and of 24 chosen ones, mean of three searches."""
    found = []
    for seed in range(3):
        searcher = RankSearcher(space, population=30, diversity=diversity, seed=seed)
        search(space, scorer, searcher, 30, n_per_generation=30)
        chosen = searcher.members, searcher.best(24)
        found.append([normalised_hv(space, conv_cost(one.genotypes)) for one in chosen])
    return np.mean(found, axis=0)


def test_crowding_keeps_the_front_spread(space, rank_and_latency):
    assert (
        volumes(space, rank_and_latency, "crowding") >= volumes(space, rank_and_latency, "none")
    ).all()


def test_a_lower_score_survives(space):
    searcher = RankSearcher(space, population=10, diversity="none", seed=0)
    for _ in range(4):
        genotypes = searcher.ask(30)
        searcher.tell(genotypes, conv_cost(genotypes))
    scores = np.sort(searcher.evaluated.values[:, 0])
    np.testing.assert_array_equal(np.sort(searcher.members.values[:, 0]), scores[:10])
    np.testing.assert_array_equal(searcher.best(5).values[:, 0], scores[:5])


def test_what_violates_survives_last(space):
    searcher = RankSearcher(space, population=10, seed=0)
    genotypes = searcher.ask(30)
    violation = np.where(np.arange(30) % 3 == 0, 0.0, 1.0)
    searcher.tell(genotypes, conv_cost(genotypes), violation=violation)
    assert (searcher.members.violation == 0).all()
    assert (searcher.best(30).violation == 0).all()
    assert len(searcher.best(30)) == 10


def test_the_closest_pair_loses_its_later_one():
    at = np.array([0.0, 0.1, 5.0, 5.3, 9.0])
    apart = np.abs(at[:, None] - at[None, :])
    np.fill_diagonal(apart, np.inf)
    assert thinned(apart, 9).tolist() == [0, 1, 2, 3, 4]
    assert thinned(apart, 4).tolist() == [0, 2, 3, 4]
    assert thinned(apart, 3).tolist() == [0, 2, 4]
    assert thinned(apart, 0).tolist() == []


@pytest.mark.parametrize("diversity", ["crowding", "genotype"])
def test_half_of_the_survivors_are_the_best_scores(space, diversity):
    searcher = RankSearcher(space, population=20, diversity=diversity, seed=0)
    genotypes = searcher.ask(60)
    scores = np.arange(60.0)
    searcher.tell(genotypes, np.column_stack([scores, conv_cost(genotypes)[:, 1]]))
    survived = np.sort(searcher.members.values[:, 0])
    assert survived[:10].tolist() == list(range(10))
    assert survived.max() < 30
    assert survived[10:].tolist() != list(range(10, 20))


def test_wrong_arguments_are_refused(space):
    with pytest.raises(ValueError, match="population"):
        RankSearcher(space, population=1, seed=0)
    with pytest.raises(ValueError, match="diversity"):
        RankSearcher(space, diversity="luck", seed=0)
    with pytest.raises(ValueError, match="cheap"):
        RankSearcher(space, n_objectives=1, seed=0)
