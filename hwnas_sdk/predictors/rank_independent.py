"""What an expected rank has to beat: the same posteriors' means, sorted into fronts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.population import Population
from hwnas_sdk.predictors.rank_platform import Platform
from hwnas_sdk.predictors.rank_sets import ArchitectureSets
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]


def independent_ranks(
    space: SearchSpace, platform: Platform, genotypes: NDArray[np.integer]
) -> Floats:
    """Fronts of the predicted means of `genotypes` among themselves, 0 = best, (n, d) -> (n,).

    What two independent predictors with the same inputs and tuning would say: a process for each
    objective. (Where costs are an exact sum, processes serve the sort of a whole space better than
    the sum, and that of a small set worse, see `independent_within`.)
    """
    among = Population(space, checked_genotypes(space, genotypes))
    error, *costs = platform.objectives
    predicted = [error.errors_of(among), *(labels.process_of(among) for labels in costs)]
    return pareto.ranks(np.column_stack([mean for mean, _ in predicted])).astype(np.float64)


def independent_within(space: SearchSpace, platform: Platform, sets: NDArray[np.integer]) -> Floats:
    """Fronts of the predicted means of each set among themselves, (s, k, d) -> (s, k).

    Costs of a coarse clock are rounded to its levels. Within a front, whoever is dominated by fewer
    and dominates more comes first, so that a front does not count as a draw.
    """
    found = ArchitectureSets.of(space, sets)
    points = found.placed(platform.read(platform.posterior(found.distinct)[0]))
    pairs = pareto.dominates(points[:, :, None, :], points[:, None, :, :]).astype(np.float64)
    balance = pairs.sum(axis=1) - pairs.sum(axis=2)  # dominators less dominated
    ranks: Floats = pareto.ranks_of_sets(points) + balance / (2.0 * points.shape[1] + 1.0)
    return ranks
