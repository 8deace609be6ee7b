"""Where architectures stand among a population, and the one score that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rank = Callable[[Floats, Floats], NDArray[np.number]]
Read = Callable[[Floats], Floats]

SHORTLIST: Final = 0.01
"""This share of the population, those most often on the first front of a draw, comes first."""
DOMINATED_SHARE: Final = 0.5
"""Weight of the share that dominates an architecture in its standing, see `Standing.order`."""
_MOST_CELLS: Final = 2**16  # of the grid on which dominating points are counted


def dominated_shares(points: Floats, population: Floats) -> Floats:
    """Share of the population that dominates each point, (q, m), (N, m) -> (q,).

    Counted on a grid: exact where no objective of the population has more than 256 values (two
    objectives; 40 for three), to the width of a cell elsewhere.
    """
    n_objectives = population.shape[1]
    most = round(_MOST_CELLS ** (1.0 / n_objectives))
    grid, fine = [], []
    for values in population.T:
        levels = np.unique(values)
        grid.append(levels[:: -(-len(levels) // most)])
        fine.append(len(levels) <= most)

    def cells(rows: Floats) -> NDArray[np.int64]:
        found = [
            np.searchsorted(levels, column, side="right")
            for levels, column in zip(grid, rows.T, strict=True)
        ]
        return np.array(found, dtype=np.int64)  # 0: below the lowest level

    shape = tuple(len(levels) + 1 for levels in grid)
    flat = np.ravel_multi_index(tuple(cells(population)), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    below = counts
    for axis in range(n_objectives):
        below = below.cumsum(axis=axis)
    at = cells(points)
    # Those of a point's own cell are its equals, unless it lies above a level that they are on.
    above = np.zeros(len(points), dtype=np.bool_)
    for i, levels in enumerate(grid):
        if fine[i]:
            above |= points[:, i] > levels[np.maximum(at[i] - 1, 0)]
    own = np.where(above, 0, counts[tuple(at)])
    shares: Floats = (below[tuple(at)] - own) / len(population)
    return shares


@dataclass(frozen=True)
class Standing:
    """Where architectures stand among a population, averaged over joint draws, (n,) each.

    Attributes:
        ranks: expected Pareto rank, 0 = best.
        dominated: expected share of the population that dominates them.
        first: share of the draws in which they are on the first front.
    """

    ranks: Floats
    dominated: Floats
    first: Floats

    @classmethod
    def over(
        cls, draws: Iterable[tuple[Floats, Floats]], *, rank: Rank, read: Read | None
    ) -> Standing:
        """The mean over joint draws of (some architectures, the population).

        Args:
            draws: points (n, m) and those of the population (N, m) of each draw, at least one.
            rank: Pareto ranks of points among a population, (n, m), (N, m) -> (n,).
            read: what a coarse clock shows of points; None where nothing is rounded. Whether they
                are on the first front is told before.
        """
        n_draws = 0
        total = np.zeros((3, 0))
        for points, population in draws:
            fronts = rank(points, population)
            first = fronts == 0
            shown, among = points, population
            if read is not None:
                shown, among = read(points), read(population)
                fronts = rank(shown, among)
            found = np.array([fronts, dominated_shares(shown, among), first])
            total = total + found if n_draws else found
            n_draws += 1
        return cls(*(total / n_draws))

    def at(self, rows: NDArray[np.int64]) -> Standing:
        """That of some rows, as copies."""
        return Standing(self.ranks[rows], self.dominated[rows], self.first[rows])

    def put(self, rows: NDArray[np.int64], other: Standing) -> None:
        """Write that of others into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    def order(self, population: Standing) -> Floats:
        """What architectures are ordered by, on the scale of ranks, lower = better.

        Half the expected rank among all, half the share that dominates. Among all architectures
        of a device that takes few different times, whatever is one step slower ranks behind; the
        rank among a handful (a batch of training, the candidates of a search) hardly depends on
        the steps and goes with the share. Neither half alone orders both well.
        """
        level = float(population.dominated.mean())
        scale = float(population.ranks.mean()) / level if level > 0 else 0.0
        return (1.0 - DOMINATED_SHARE) * self.ranks + DOMINATED_SHARE * scale * self.dominated


def least_listed(shares: Floats, draws: int) -> float:
    """Least share of draws on the first front that is on the shortlist, shares (N,)."""
    return max(float(np.quantile(shares, 1.0 - SHORTLIST, method="lower")), 1.0 / draws)


def rank_scores(order: Floats, first: Floats, least: float, draws: int) -> Floats:
    """Scores, higher = better, of `Standing.order` (n,) and shares of draws on the first front.

    Minus the order; the shortlist, shares from `least` on, comes before all others with scores in
    (0, 1], ordered by share and then by order.
    """
    listed = (first * draws + 1.0 / (1.0 + order)) / (draws + 1.0)
    return np.where(first >= least, listed, -order)
