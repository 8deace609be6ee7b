"""Rank-guided evolution: one score takes the place of non-dominated sorting.

The score orders architectures by their expected Pareto rank. It does not tell members of one front
apart, so who survives among those of similar score is settled by diversity.

Source: HW-PR-NAS (Benmeziane et al.), whose text on the search is not public beyond its name
(multi-objective evolutionary algorithm) and sizes; the order of survival is ours.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from hwnas_sdk.search.base import Evaluated, Values
from hwnas_sdk.search.population import (
    Indices,
    PopulationSearcher,
    check_sizes,
    crowding_distance,
    joined,
    places,
    tournament,
)
from hwnas_sdk.search.variation import mutate, uniform_crossover
from hwnas_sdk.spaces import Genotypes, SearchSpace

Diversity = Literal["crowding", "genotype", "none"]

_SHORTLIST = 4
"""Best scores that each of the chosen ones is picked from."""


class RankSearcher(PopulationSearcher):
    """Evolves a population by a scalar score.

    It is told values (n, m) whose first column is the score, lower is better, and whose other
    columns are cheap predicted objectives. Those never count as better or worse: they say how
    alike two architectures are.

    Half of the survivors are the best scores; the other half are the most different ones among the
    next best, as many as the population. `best` is meant for what is measured or trained then.

    Args:
        space: where to search.
        population: survivors of each generation.
        tournament_size: members compared for each parent.
        diversity: "crowding" distance in the cheap objectives, "genotype" = Hamming distance to
            the closest other of the same group, or "none": survival by score alone.
        seed: with the tells, all that determines the asks.
        n_objectives: columns of the values it will be told, the score included.
    """

    name = "rank"

    def __init__(
        self,
        space: SearchSpace,
        *,
        population: int = 100,
        tournament_size: int = 2,
        diversity: Diversity = "crowding",
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Start without members."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        check_sizes(population, tournament_size)
        if diversity not in get_args(Diversity):
            raise ValueError(
                f"diversity is one of {', '.join(get_args(Diversity))}, not {diversity!r}"
            )
        if diversity == "crowding" and n_objectives < 2:
            raise ValueError("crowding needs a cheap objective beside the score")
        self.population = population
        self.tournament_size = tournament_size
        self.diversity = diversity

    def best(self, k: int) -> Evaluated:
        """Up to `k` feasible architectures told: good ones that differ.

        Of the best 4 k scores the two most alike lose their worse one until `k` are left; without
        diversity the `k` best scores. Best score first.
        """
        feasible = self.evaluated.feasible
        order = np.argsort(feasible.values[:, 0], kind="stable")
        if self.diversity == "none":
            return feasible.take(order[:k])
        shortlist = feasible.take(order[: _SHORTLIST * k])
        return shortlist.take(thinned(self._apart(shortlist), k))

    def _children(self, n: int) -> Genotypes:
        members = self._members
        standing = places(np.lexsort((members.values[:, 0], members.violation)))
        first, second = (
            members.genotypes[tournament(standing, self.tournament_size, n, self._rng)]
            for _ in range(2)
        )
        children = uniform_crossover(first, second, self._rng)[0]
        return mutate(children, self._choices, self._rng)

    def _survivors(self, members: Evaluated, told: Evaluated) -> Evaluated:
        everyone = joined(members, told)
        return everyone.take(self._order(everyone)[: self.population])

    def _order(self, rows: Evaluated) -> Indices:
        """Rows from the first to survive to the last."""
        score = rows.values[:, 0]
        by_score = np.lexsort((score, rows.violation))
        if self.diversity == "none" or len(rows) <= self.population:
            return by_score
        # Differs from the plain "decile, then crowding": of a population and as many children the
        # fifth decile ends where the survivors do, and crowding would decide nothing.
        half = self.population // 2
        edges = score[by_score[[half - 1, min(half + self.population, len(rows)) - 1]]]
        group = np.searchsorted(edges, score, side="left")
        distance = np.zeros(len(rows))
        for which in np.unique(group):
            within = group == which
            distance[within] = (
                crowding_distance(rows.values[within, 1:])
                if self.diversity == "crowding"
                else self._apart(rows.take(within)).min(axis=1, initial=np.inf)
            )
        return np.lexsort((score, -distance, group, rows.violation))

    def _apart(self, rows: Evaluated) -> Values:
        """How different two rows are, (n, n); infinite on the diagonal."""
        apart: Values
        if self.diversity == "crowding":
            cheap = rows.values[:, 1:]
            span = np.ptp(cheap, axis=0) if len(rows) else 1.0
            scaled = cheap / np.where(span > 0.0, span, 1.0)
            apart = np.linalg.norm(scaled[:, None, :] - scaled[None, :, :], axis=2)
        else:
            genes = rows.genotypes
            apart = (genes[:, None, :] != genes[None, :, :]).sum(axis=2).astype(np.float64)
        np.fill_diagonal(apart, np.inf)
        return apart


def thinned(apart: Values, k: int) -> Indices:
    """The `k` rows left when the two closest lose the later one, again and again, ascending.

    Shapes: apart (n, n), symmetric with an infinite diagonal -> (min(n, k),).
    """
    left = apart.copy()
    n = len(left)
    gone = np.zeros(n, dtype=np.bool_)
    for _ in range(n - k):
        later = max(divmod(int(left.argmin()), n))
        left[later, :] = left[:, later] = np.inf
        gone[later] = True
    return np.flatnonzero(~gone)
