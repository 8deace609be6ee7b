"""What a rank predictor learned for one platform: posteriors of all objectives, and what follows.

That is the standing of the whole population under them, or of others that join it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.predictors.card import Tensors
from hwnas_sdk.predictors.expected_rank import joint_draws, own_deviates, ranks_among
from hwnas_sdk.predictors.population import Population
from hwnas_sdk.predictors.rank_labels import MIN_LABELS, Labels
from hwnas_sdk.predictors.standing import Read, Standing, least_listed
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

Floats = NDArray[np.float64]

_STANDING: Final = tuple(field.name for field in fields(Standing))
# With at least this share of repeated values, costs were read off a coarse clock.
_COARSE: Final = 0.5


@dataclass(frozen=True)
class Platform:
    """What was learned for one platform.

    Attributes:
        objectives: labels of the error (log scale of its own) and of each cost.
        levels: per cost, the values a coarse clock showed; None for a fine one.
        correlation: of what the objectives' processes leave unexplained, (m, m).
        shortlist: least share of draws on the first front that is on the shortlist.
        standing: of the population.
    """

    objectives: tuple[Labels, ...]
    levels: tuple[Floats | None, ...]
    correlation: Floats
    shortlist: float
    standing: Standing

    @classmethod
    def learn(
        cls,
        error: Labels,
        genotypes: Genotypes,
        columns: Floats,
        population: Population,
        *,
        name: str,
        seed: int,
        draws: int,
    ) -> Platform:
        """Learn from live architectures and rank the population.

        Shapes: genotypes (n, d), columns (n, k) positive costs, NaN = not measured.
        Raises: ModelError naming `name` with fewer than 10 values of a cost.
        """
        space, costs, levels = population.space, [], []
        for column in columns.T:
            kept = np.isfinite(column)
            labels = Labels.of_cost(space, genotypes[kept], column[kept], name)
            distinct = np.unique(labels.target)
            coarse = len(distinct) <= _COARSE * len(labels.target)
            costs.append(labels)
            levels.append(distinct if coarse and labels.law(space) is None else None)
        unranked = cls(
            (error, *costs), tuple(levels), _correlation(space, costs), 0.0,
            Standing(*np.zeros((3, 0))),
        )  # fmt: skip
        standing = Standing.over(
            ((drawn, drawn) for drawn in unranked._draws(population, seed, draws)),
            rank=lambda points, _: pareto.ranks(points),
            read=unranked._reading,
        )
        least = least_listed(standing.first, draws)
        return replace(unranked, shortlist=least, standing=standing)

    def standing_of(
        self, others: Population, population: Population, *, seed: int, draws: int
    ) -> Standing:
        """Standing that live architectures would have if they joined the population."""
        means, sds = self.posterior(others)
        root = np.linalg.cholesky(self.correlation)
        own = own_deviates(means.shape[1], seed=seed, draws=draws)
        drawn = self._draws(population, seed, draws)
        return Standing.over(
            ((means + sds * (root @ z), among) for among, z in zip(drawn, own, strict=True)),
            rank=ranks_among,
            read=self._reading,
        )

    def posterior(self, among: Population) -> tuple[Floats, Floats]:
        """Mean and sd of all transformed objectives, error first, costs not rounded, two (N, m)."""
        error, *costs = self.objectives
        predicted = [error.errors_of(among), *(labels.costs_of(among) for labels in costs)]
        means, sds = zip(*predicted, strict=True)
        return np.column_stack(means), np.column_stack(sds)

    def read(self, points: Floats) -> Floats:
        """Round costs read off a coarse clock to the nearest value it showed; a new array."""
        points = points.copy()
        for column, levels in enumerate(self.levels, start=1):
            if levels is not None:
                middle = (levels[1:] + levels[:-1]) / 2.0
                points[:, column] = levels[np.searchsorted(middle, points[:, column])]
        return points

    @property
    def _reading(self) -> Read | None:
        return self.read if any(self.coarse) else None

    def _draws(self, population: Population, seed: int, draws: int) -> Iterator[Floats]:
        """Joint draws of the population's objectives, (N, m) each, costs not rounded."""
        # One seed for every platform: their draws are paired.
        means, sds = self.posterior(population)
        return joint_draws(means, sds, self.correlation, seed=seed, draws=draws)

    # --- files ----------------------------------------------------------------------------------

    def tensors(self, at: str) -> Tensors:
        """Named arrays for a file; `coarse` says which levels are among them."""
        found: Tensors = {
            f"{at}.correlation": self.correlation,
            f"{at}.shortlist": np.array([self.shortlist]),
        }
        for j, labels in enumerate(self.objectives):
            found |= labels.tensors(f"{at}.{j}")
        for j, levels in enumerate(self.levels):
            if levels is not None:
                found[f"{at}.levels.{j}"] = levels
        return found | {f"{at}.{part}": getattr(self.standing, part) for part in _STANDING}

    @property
    def coarse(self) -> list[bool]:
        """Which costs were read off a coarse clock."""
        return [levels is not None for levels in self.levels]

    @classmethod
    def from_tensors(cls, tensors: Tensors, at: str, coarse: list[bool]) -> Platform:
        """Inverse of `tensors`. Raises: KeyError for one that is missing."""
        return cls(
            tuple(Labels.from_tensors(tensors, f"{at}.{j}") for j in range(len(coarse) + 1)),
            tuple(tensors[f"{at}.levels.{j}"] if c else None for j, c in enumerate(coarse)),
            tensors[f"{at}.correlation"],
            float(tensors[f"{at}.shortlist"][0]),
            Standing(*(tensors[f"{at}.{part}"] for part in _STANDING)),
        )


def _correlation(space: SearchSpace, costs: list[Labels]) -> Floats:
    """Correlation of the costs' leave-one-out errors over architectures that have them all.

    Energy and latency of one architecture err together; the error of its training does not.
    """
    matrix = np.eye(len(costs) + 1)
    if len(costs) == 1:
        return matrix
    residuals = [labels.cost_residuals(space) for labels in costs]
    shared = sorted(set.intersection(*(set(r) for r in residuals)))
    if len(shared) >= MIN_LABELS:
        values = np.array([[r[key] for key in shared] for r in residuals])
        # Held below one, so that the matrix has a Cholesky factor.
        matrix[1:, 1:] = 0.999 * np.corrcoef(values) + 0.001 * np.eye(len(costs))
    for i, labels in enumerate(costs, start=1):
        if labels.law(space) is not None:  # a sum leaves no errors
            matrix[i, :], matrix[:, i], matrix[i, i] = 0.0, 0.0, 1.0
    return matrix
