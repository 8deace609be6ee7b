"""Random search: the baseline every other searcher has to beat."""

from __future__ import annotations

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.base import Evaluated, Searcher
from hwnas_sdk.spaces import Genotypes, SearchSpace


class RandomSearcher(Searcher):
    """Asks uniform live architectures, none twice; learns nothing."""

    name = "random"

    def __init__(self, space: SearchSpace, *, seed: int, n_objectives: int = 2) -> None:
        """Start with nothing told."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self._rng = child_rng(seed, "search", self.name, space.name)

    def _ask(self, n: int) -> Genotypes:
        return self._fresh_random(n, self._rng)

    def _tell(self, told: Evaluated) -> None:
        del told
