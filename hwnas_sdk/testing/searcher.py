"""What every searcher must be able to do.

Usage::

    class TestMySearcher(SearcherConformance):
        @pytest.fixture
        def make(self) -> MakeSearcher:
            return lambda space, seed: MySearcher(space, seed=seed)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.base import Searcher, Values
from hwnas_sdk.spaces import Genotypes, SearchSpace, get_space

MakeSearcher = Callable[[SearchSpace, int], Searcher]
"""(space, seed) -> a fresh searcher for two objectives."""


class SearcherConformance:
    """Inherit and override the fixture `make`; `space` may be overridden too."""

    n_per_ask = 20
    n_asks = 4

    @pytest.fixture
    def make(self) -> MakeSearcher:
        """Factory of the searcher under test."""
        raise NotImplementedError("override the fixture `make`")

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Space to search."""
        return get_space("nasbench201")

    def test_asks_live_members_and_none_twice(self, make: MakeSearcher, space: SearchSpace) -> None:
        """Every ask is a full batch of valid, live architectures that were not asked before."""
        searcher = make(space, 0)
        seen: set[tuple[int, ...]] = set()
        for _ in range(self.n_asks):
            genotypes = searcher.ask(self.n_per_ask)
            assert genotypes.shape == (self.n_per_ask, space.n_decisions)
            assert genotypes.dtype == np.int64
            for genes in genotypes.tolist():
                arch = space.architecture(genes)
                assert not space.is_dead(arch)
                assert arch.genotype not in seen
                seen.add(arch.genotype)
            searcher.tell(genotypes, toy_scores(genotypes))

    def test_same_seed_same_search(self, make: MakeSearcher, space: SearchSpace) -> None:
        """Two searchers with one seed ask the same, whatever the global generators hold."""
        np.random.seed(1)  # noqa: NPY002  # the point is that it must not matter
        first = self._asks(make(space, 5))
        np.random.seed(2)  # noqa: NPY002
        np.testing.assert_array_equal(self._asks(make(space, 5)), first)
        assert not np.array_equal(self._asks(make(space, 6)), first)

    def test_resumes_by_replay(self, make: MakeSearcher, space: SearchSpace) -> None:
        """After replaying the tells, a fresh searcher asks what the old one would have asked."""
        old = make(space, 3)
        self._asks(old)
        new = make(space, 3)
        new.replay(old.tells)
        np.testing.assert_array_equal(new.evaluated.values, old.evaluated.values)
        np.testing.assert_array_equal(new.ask(self.n_per_ask), old.ask(self.n_per_ask))

    def test_foreign_tells_do_not_replay(self, make: MakeSearcher, space: SearchSpace) -> None:
        """Tells of another seed raise instead of giving a search that never happened."""
        old = make(space, 3)
        self._asks(old)
        with pytest.raises(DataError) as caught:
            make(space, 4).replay(old.tells)
        assert caught.value.code == "replay_mismatch"

    def test_wrong_tells_are_refused(self, make: MakeSearcher, space: SearchSpace) -> None:
        """Other architectures, other shapes, NaN, and asking twice raise ValueError."""
        searcher = make(space, 0)
        with pytest.raises(ValueError, match="asked"):
            searcher.tell(np.zeros((1, space.n_decisions), dtype=np.int64), np.zeros((1, 2)))
        genotypes = searcher.ask(self.n_per_ask)
        scores = toy_scores(genotypes)
        with pytest.raises(ValueError, match="last ask"):
            searcher.ask(self.n_per_ask)
        with pytest.raises(ValueError, match="asked"):
            searcher.tell(genotypes[::-1], scores)
        with pytest.raises(ValueError, match="expected values"):
            searcher.tell(genotypes, scores[:, :1])
        with pytest.raises(ValueError, match="finite"):
            searcher.tell(genotypes, np.full_like(scores, np.nan))
        searcher.tell(genotypes, scores)
        assert len(searcher.evaluated) == self.n_per_ask

    def test_front_is_feasible_and_non_dominated(
        self, make: MakeSearcher, space: SearchSpace
    ) -> None:
        """The front holds feasible architectures only, and none that another one dominates."""
        searcher = make(space, 1)
        for _ in range(2):
            genotypes = searcher.ask(self.n_per_ask)
            scores = toy_scores(genotypes)
            searcher.tell(genotypes, scores, violation=np.maximum(0.0, 3.0 - scores[:, 0]))
        front = searcher.front()
        assert 0 < len(front) <= len(searcher.evaluated)
        assert (front.violation == 0.0).all()
        for row in front.values:
            rivals = searcher.evaluated.feasible.values
            assert not ((rivals <= row).all(axis=1) & (rivals < row).any(axis=1)).any()

    def _asks(self, searcher: Searcher) -> Genotypes:
        asked = []
        for _ in range(self.n_asks):
            genotypes = searcher.ask(self.n_per_ask)
            searcher.tell(genotypes, toy_scores(genotypes))
            asked.append(genotypes)
        return np.concatenate(asked)


def toy_scores(genotypes: Genotypes) -> Values:
    """Two conflicting objectives with ties, (n, d) -> (n, 2)."""
    genes = genotypes.astype(np.float64)
    cost = (genes * np.arange(1, genes.shape[1] + 1)).sum(axis=1)
    return np.column_stack([cost, (4.0 - genes).sum(axis=1)])
