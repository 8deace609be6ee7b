"""What searchers share that vary a set of members: collecting children, tournaments, crowding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.base import Evaluated, Searcher, Values
from hwnas_sdk.spaces import Genotypes, SearchSpace

Indices = NDArray[np.int64]


class PopulationSearcher(Searcher):
    """Asks a Latin hypercube first, then variations of its members, then random newcomers.

    A subclass defines `_children` and `_survivors`; which children may be asked is settled here.

    Args:
        space: where to search.
        seed: with the tells, all that determines the asks.
        n_objectives: columns of the values it will be told.
    """

    max_matings = 8
    """How often children are drawn; beyond it random newcomers are cheaper than more mating."""

    def __init__(self, space: SearchSpace, *, seed: int, n_objectives: int = 2) -> None:
        """Start without members."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        self._rng = child_rng(seed, "search", self.name, space.name)
        self._choices = np.array(space.choices, dtype=np.int64)
        self._members = self.evaluated

    @abstractmethod
    def _children(self, n: int) -> Genotypes:
        """About `n` variations of the members, (any, d); repeated and dead ones are dropped."""

    @abstractmethod
    def _survivors(self, members: Evaluated, told: Evaluated) -> Evaluated:
        """The next members, at least one."""

    @property
    def members(self) -> Evaluated:
        """The current members."""
        return self._members

    def _ask(self, n: int) -> Genotypes:
        if len(self._members) == 0:
            return self._collect(n, lambda missing: self.space.latin_hypercube(missing, self._rng))
        return self._collect(n, self._children)

    def _tell(self, told: Evaluated) -> None:
        self._members = self._survivors(self._members, told)

    def _collect(self, n: int, draw: Callable[[int], Genotypes]) -> Genotypes:
        """Up to `n` architectures that may be asked: drawn ones first, the rest at random."""
        return self._fill_up(self._breed(n, draw), n)

    def _breed(self, n: int, draw: Callable[[int], Genotypes]) -> Genotypes:
        """Up to `n` drawn architectures that may be asked; fewer when drawing runs dry."""
        found = np.empty((0, self.space.n_decisions), dtype=np.int64)
        for _ in range(self.max_matings):
            if len(found) == n:
                break
            found = self._first_askable(np.concatenate([found, draw(n - len(found))]), n)
        return found

    def _fill_up(self, found: Genotypes, n: int) -> Genotypes:
        """Add random newcomers where variation finds nothing new."""
        if len(found) == n:
            return found
        newcomers = self._fresh_random(n, self._rng)
        return self._first_askable(np.concatenate([found, newcomers]), n)

    def _first_askable(self, genotypes: Genotypes, n: int) -> Genotypes:
        return genotypes[self._may_ask(genotypes)][:n]


def check_sizes(population: int, tournament_size: int) -> None:
    """Raise ValueError for a population or tournament nobody can be chosen from."""
    if population < 2 or tournament_size < 1:
        raise ValueError(
            "a population needs at least 2 members and a tournament 1, "
            f"got {population} and {tournament_size}"
        )


def joined(first: Evaluated, second: Evaluated) -> Evaluated:
    """Rows of both, in order."""
    return Evaluated(
        np.concatenate([first.genotypes, second.genotypes]),
        np.concatenate([first.values, second.values]),
        np.concatenate([first.violation, second.violation]),
    )


def best_trade_offs(told: Evaluated) -> Evaluated:
    """The feasible front; while nothing is feasible, what violates least."""
    front = told.front
    return front if len(front) else told.take(told.violation == told.violation.min())


def tournament(standing: Indices, size: int, n: int, rng: np.random.Generator) -> Indices:
    """Winners of `n` tournaments among `size` random members each, drawn with replacement.

    Shapes: standing (k,), lower wins -> rows (n,).
    """
    entrants = rng.integers(0, len(standing), size=(n, size))
    winners: Indices = entrants[np.arange(n), standing[entrants].argmin(axis=1)]
    return winners


def places(order: Indices) -> Indices:
    """Place of each row in an order of rows, (n,) -> (n,)."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place


def crowding_distance(values: Values) -> Values:
    """Perimeter of the box between a point's neighbours; infinite for the extremes.

    Shapes: (n, m) -> (n,); every objective counts in units of its span, constant ones not at all.
    Source: Deb et al. 2002, section III-B.
    """
    n = len(values)
    distance = np.zeros(n)
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        if n == 0 or ordered[-1] <= ordered[0]:
            continue
        gap = np.full(n, np.inf)
        gap[1:-1] = (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
        distance[order] += gap
    return distance
