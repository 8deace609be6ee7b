"""The searchers: conformance, and that NSGA-II finds fronts random search does not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from toy_search import TinySpace, conv_cost, normalised_hv

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.base import relative_excess
from hwnas_sdk.search.exhaustive import ExhaustiveSearcher
from hwnas_sdk.search.nsga2 import Nsga2Searcher
from hwnas_sdk.search.random import RandomSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.search.traits import Traits
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.searcher import SearcherConformance


class TestNsga2(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: Nsga2Searcher(space, population=20, seed=seed)


class TestRandom(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: RandomSearcher(space, seed=seed)


class TestExhaustive(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: ExhaustiveSearcher(space, seed=seed)


def test_exhaustive_asks_everything_once(space):
    searcher = ExhaustiveSearcher(space, seed=3)
    result = search(space, conv_cost, searcher, 20, n_per_generation=2000)
    live = space.all_genotypes()[space.live_mask()]
    assert result.n_evaluations == len(live) == len(np.unique(result.evaluated.genotypes, axis=0))
    assert normalised_hv(space, result.front.values) == pytest.approx(1.0)
    assert len(searcher.ask(5)) == 0


@pytest.fixture(scope="module")
def space():
    return get_space("nasbench201")


def test_nsga2_beats_random_at_equal_evaluations(space):
    results = {}
    for searcher in (
        Nsga2Searcher(space, population=40, seed=0),
        RandomSearcher(space, seed=0),
    ):
        result = search(space, conv_cost, searcher, 25, n_per_generation=40)
        assert result.n_evaluations == 1000
        results[searcher.name] = normalised_hv(space, result.front.values)
    assert results["nsga2"] > 0.999
    assert results["nsga2"] > results["random"]


def test_limits_are_kept(space):
    limit = 6.0
    searcher = Nsga2Searcher(space, population=30, seed=1)
    result = search(
        space,
        conv_cost,
        searcher,
        15,
        n_per_generation=30,
        violation=lambda g: relative_excess(conv_cost(g)[:, 1:], np.array([limit])),
    )
    assert (result.front.values[:, 1] <= limit).all()
    later = result.evaluated.violation[-150:]
    assert (later == 0).mean() > (result.evaluated.violation[:30] == 0).mean()
    best = conv_cost(space.all_genotypes()[space.live_mask()])
    reachable = best[best[:, 1] <= limit, 0].min()
    assert result.front.values[:, 0].min() < 1.1 * reachable


def test_search_starts_where_nothing_is_feasible(space):
    searcher = Nsga2Searcher(space, population=10, seed=1)
    result = search(
        space, conv_cost, searcher, 3, n_per_generation=10, violation=lambda g: np.ones(len(g))
    )
    assert result.n_evaluations == 30
    assert len(result.front) == 0


@pytest.mark.parametrize("n_objectives", [1, 3])
def test_other_numbers_of_objectives(space, n_objectives):
    def scorer(genotypes):
        two = conv_cost(genotypes)
        energy = two[:, 1] ** 1.5 + genotypes[:, 0]
        return np.column_stack([two, energy])[:, :n_objectives]

    searcher = Nsga2Searcher(space, population=20, seed=2, n_objectives=n_objectives)
    result = search(space, scorer, searcher, 5, n_per_generation=20)
    assert result.evaluated.values.shape == (100, n_objectives)
    assert len(result.front) >= 1


def test_batches_may_change_size(space):
    searcher = Nsga2Searcher(space, population=20, seed=2)
    for n in (7, 33, 1, 20):
        genotypes = searcher.ask(n)
        assert len(genotypes) == n
        searcher.tell(genotypes, conv_cost(genotypes))


@pytest.mark.parametrize("kind", [RandomSearcher, Nsga2Searcher])
def test_a_space_is_asked_completely_and_then_no_more(kind):
    space = TinySpace()
    searcher = kind(space, seed=0)
    result = search(space, lambda g: g[:, :2].astype(float), searcher, 10, n_per_generation=7)
    distinct = {tuple(row) for row in result.evaluated.genotypes.tolist()}
    assert len(distinct) == result.n_evaluations == 18
    assert searcher.ask(5).shape == (0, 4)


def test_traits_are_looked_up_once():
    calls = []

    class Counting(TinySpace):
        def is_dead(self, architecture):
            calls.append(architecture)
            return super().is_dead(architecture)

    traits = Traits(Counting())
    genotypes = np.array([[0, 1, 0, 2], [1, 1, 0, 2], [2, 1, 0, 2]])
    for _ in range(2):
        np.testing.assert_array_equal(traits.dead(genotypes), [True, False, False])
    assert len(calls) == 3
    assert traits.family((1, 1, 0, 2)) == traits.family((2, 1, 0, 2)) != traits.family((2, 2, 0, 2))


def test_scores_that_are_not_numbers_stop_the_search(space):
    with pytest.raises(DataError, match="1 of 10"):
        search(
            space,
            lambda g: np.where(np.arange(len(g))[:, None] == 3, np.nan, conv_cost(g)),
            RandomSearcher(space, seed=0),
            2,
            n_per_generation=10,
        )


def test_wrong_arguments_are_refused(space):
    with pytest.raises(ValueError, match="population"):
        Nsga2Searcher(space, population=1, seed=0)
    with pytest.raises(ValueError, match="n_objectives"):
        RandomSearcher(space, seed=0, n_objectives=0)
    with pytest.raises(ValueError, match="at least one"):
        RandomSearcher(space, seed=0).ask(0)
    with pytest.raises(ValueError, match="generation"):
        search(space, conv_cost, RandomSearcher(space, seed=0), 0)
    with pytest.raises(ValueError, match="positive"):
        relative_excess(np.ones((2, 1)), np.zeros(1))


def test_relative_excess():
    values = np.array([[5.0, 10.0], [12.0, 10.0], [20.0, 30.0]])
    np.testing.assert_allclose(relative_excess(values, np.array([10.0, 15.0])), [0, 0.2, 2.0])
    np.testing.assert_allclose(relative_excess(values, np.array([np.inf, 20.0])), [0, 0, 0.5])


def test_events_count_generations(space):
    heard = []
    search(
        space,
        conv_cost,
        RandomSearcher(space, seed=0),
        3,
        n_per_generation=5,
        on_event=heard.append,
    )
    assert [(event.done, event.total) for event in heard] == [(1, 3), (2, 3), (3, 3)]


def test_pymoo_is_loaded_late_and_says_nothing():
    code = (
        "import sys, hwnas_sdk.search.nsga2 as n, hwnas_sdk.search.run, hwnas_sdk.search.select\n"
        "assert 'pymoo' not in sys.modules\n"
        "from hwnas_sdk.spaces import get_space\n"
        "s = n.Nsga2Searcher(get_space('nasbench201'), population=4, seed=0)\n"
        "import numpy as np\n"
        "for _ in range(2): g = s.ask(4); s.tell(g, g[:, :2].astype(float))\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
