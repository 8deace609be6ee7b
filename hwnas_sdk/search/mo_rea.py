"""Regularised evolution for several objectives: members die of age, not of being beaten.

Source: Real et al., AAAI 2019; the tournament compares by non-dominated rank, then crowding
distance, as Deb et al. 2002 do.
"""

from __future__ import annotations

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.search.base import Evaluated
from hwnas_sdk.search.population import (
    PopulationSearcher,
    check_sizes,
    crowding_distance,
    joined,
    places,
    tournament,
)
from hwnas_sdk.search.variation import mutate
from hwnas_sdk.spaces import Genotypes, SearchSpace


class MoReaSearcher(PopulationSearcher):
    """Mutates tournament winners of the youngest `population` architectures.

    Args:
        space: where to search.
        population: members that are alive at a time; so many are drawn before any is mutated.
        tournament_size: members compared for each parent.
        seed: with the tells, all that determines the asks.
        n_objectives: columns of the values it will be told.
    """

    name = "mo-rea"

    def __init__(
        self,
        space: SearchSpace,
        *,
        population: int = 100,
        tournament_size: int = 10,
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Start without members."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        check_sizes(population, tournament_size)
        self.population = population
        self.tournament_size = tournament_size

    def _children(self, n: int) -> Genotypes:
        members = self._members
        if len(members) < self.population:
            return self.space.latin_hypercube(n, self._rng)
        ranks = pareto.ranks(members.values)
        crowding = np.zeros(len(members))
        for rank in np.unique(ranks):
            crowding[ranks == rank] = crowding_distance(members.values[ranks == rank])
        standing = places(np.lexsort((-crowding, ranks, members.violation)))
        parents = tournament(standing, self.tournament_size, n, self._rng)
        return mutate(members.genotypes[parents], self._choices, self._rng)

    def _survivors(self, members: Evaluated, told: Evaluated) -> Evaluated:
        everyone = joined(members, told)
        return everyone.take(np.arange(len(everyone))[-self.population :])
