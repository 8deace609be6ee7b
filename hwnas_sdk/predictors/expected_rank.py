"""Expected Pareto ranks: what joint draws of all objectives say on average.

Every rank predictor with a posterior counts ranks the same way, whatever its posterior was learned
from: `RankPredictor` from labels, `ExpectedRanks` from the mean and sd that others predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.rng import child_rng

Floats = NDArray[np.float64]

DRAWS: Final = 64
_CHUNK: Final = 4_000_000  # comparisons at once


def joint_draws(
    means: Floats, sds: Floats, correlation: Floats, *, seed: int, draws: int
) -> Iterator[Floats]:
    """Draws of a population's objectives, (N, m) each; paired for all that share a seed.

    Errors of different architectures are independent; those of one architecture's objectives
    correlate as given.

    Shapes: means, sds (N, m); correlation (m, m).
    """
    root = np.linalg.cholesky(correlation)
    rng = child_rng(seed, "rank draws")
    for _ in range(draws):
        yield means + sds * (rng.normal(size=means.shape) @ root.T)


def own_deviates(n_objectives: int, *, seed: int, draws: int) -> Floats:
    """One deviate per draw, shared by all outside the population, (draws, m).

    So the score of an architecture depends on nothing else that is asked with it.
    """
    deviates: Floats = child_rng(seed, "rank draws", "others").normal(size=(draws, n_objectives))
    return deviates


def ranks_among(points: Floats, population: Floats) -> Floats:
    """Rank each point would have in the population if it alone joined: 1 + the worst above it.

    Shapes: points (q, m), population (N, m) -> (q,).
    """
    ranks = pareto.ranks(population)
    found = np.zeros(len(points))
    step = max(_CHUNK // max(len(population), 1), 1)
    for start in range(0, len(points), step):
        above = pareto.dominates(population, points[start : start + step, None, :])
        found[start : start + step] = np.where(above, ranks + 1, 0).max(axis=1)
    return found


@dataclass(frozen=True)
class ExpectedRanks:
    """A population ranked under independent beliefs about its objectives.

    Attributes:
        means, sds: of the population's objectives, minimised, on scales on which the beliefs are
            normal, (N, m).
        expected: ranks of the population, (N,), 0 = best.
        seed, draws: what the expectation is taken over.
    """

    means: Floats
    sds: Floats
    expected: Floats
    seed: int
    draws: int

    @classmethod
    def of(cls, means: Floats, sds: Floats, *, seed: int, draws: int = DRAWS) -> ExpectedRanks:
        """Rank a population, (N, m) each. Raises: ValueError for an empty one or NaN."""
        if means.shape != sds.shape or len(means) == 0:
            raise ValueError(f"cannot rank means {means.shape} with sds {sds.shape}")
        expected = np.zeros(len(means))
        for points in joint_draws(means, sds, np.eye(means.shape[1]), seed=seed, draws=draws):
            expected += pareto.ranks(points) / draws
        return cls(means, sds, expected, seed, draws)

    def of_others(self, means: Floats, sds: Floats) -> Floats:
        """Expected ranks that others would have if they joined, (n, m) each -> (n,)."""
        n_objectives = means.shape[1]
        own = own_deviates(n_objectives, seed=self.seed, draws=self.draws)
        drawn = joint_draws(
            self.means, self.sds, np.eye(n_objectives), seed=self.seed, draws=self.draws
        )
        expected = np.zeros(len(means))
        for points, deviates in zip(drawn, own, strict=True):
            expected += ranks_among(means + sds * deviates, points) / self.draws
        return expected
