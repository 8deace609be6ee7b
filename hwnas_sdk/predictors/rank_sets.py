"""Handfuls of architectures that are ranked among themselves alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.population import Population, live_rows
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArchitectureSets:
    """Sets of architectures, each distinct one once.

    Attributes:
        distinct: the architectures there are, u of them.
        member: which of them each place holds, (s, k).
        alive: whether it depends on its input, (s, k).
    """

    distinct: Population
    member: NDArray[np.int64]
    alive: NDArray[np.bool_]

    @classmethod
    def of(cls, space: SearchSpace, sets: NDArray[np.integer]) -> ArchitectureSets:
        """From genotypes (s, k, d). Raises: ModelError for another shape, SpaceError."""
        given = np.asarray(sets)
        if given.ndim != 3:
            raise ModelError(f"expected sets of genotypes, (s, k, d), got {given.shape}")
        flat = given.reshape(given.shape[0] * given.shape[1], given.shape[2])
        genes, member = np.unique(checked_genotypes(space, flat), axis=0, return_inverse=True)
        member = member.reshape(given.shape[:2]).astype(np.int64)
        return cls(Population(space, genes), member, live_rows(space, genes)[member])

    def placed(self, points: Floats) -> Floats:
        """Points of the distinct ones (u, m) at their places, the dead behind all, (s, k, m)."""
        return np.where(self.alive[:, :, None], points[self.member], np.inf)
