"""Local search for several objectives: try what is one step away from the best trade-offs."""

from __future__ import annotations

from hwnas_sdk.search.base import Evaluated
from hwnas_sdk.search.population import PopulationSearcher, best_trade_offs, joined
from hwnas_sdk.search.variation import neighbours
from hwnas_sdk.spaces import Genotypes


class LocalSearcher(PopulationSearcher):
    """Asks neighbours of the non-dominated set in random order; random ones when all are known.

    Neighbours differ in one decision. The members are the non-dominated set of everything told.

    Args:
        space: where to search.
        seed: with the tells, all that determines the asks.
        n_objectives: columns of the values it will be told.
    """

    name = "local-search"
    max_matings = 1  # all neighbours are drawn at once

    def _children(self, n: int) -> Genotypes:
        del n
        return self._rng.permutation(neighbours(self._members.genotypes, self._choices))

    def _survivors(self, members: Evaluated, told: Evaluated) -> Evaluated:
        return best_trade_offs(joined(members, told))
