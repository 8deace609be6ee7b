"""Every architecture of a small space, once: where scoring is cheap, nothing is better."""

from __future__ import annotations

from typing import Final

import numpy as np

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.base import Evaluated, Searcher
from hwnas_sdk.spaces import Genotypes, SearchSpace

LARGEST_SPACE: Final = 50_000
"""Spaces up to this size are scored as a whole in seconds."""


class ExhaustiveSearcher(Searcher):
    """Asks every live architecture in random order; learns nothing.

    Raises: ValueError for a space of more than `LARGEST_SPACE` architectures.
    """

    name = "exhaustive"

    def __init__(self, space: SearchSpace, *, seed: int, n_objectives: int = 2) -> None:
        """Shuffle the space."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if space.size > LARGEST_SPACE:
            raise ValueError(
                f"{space.name} has {space.size} architectures, too many to ask them all"
            )
        self._order = child_rng(seed, "search", self.name, space.name).permutation(space.size)
        self._next = 0

    def _ask(self, n: int) -> Genotypes:
        found: list[Genotypes] = []
        missing = n
        while missing and self._next < len(self._order):
            numbers = self._order[self._next : self._next + missing]
            self._next += len(numbers)
            genotypes = self.space.grid(numbers)
            found.append(genotypes[self._may_ask(genotypes)])
            missing -= len(found[-1])
        none = np.empty((0, self.space.n_decisions), dtype=np.int64)
        return np.concatenate([none, *found])

    def _tell(self, told: Evaluated) -> None:
        del told
