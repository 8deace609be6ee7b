"""The architectures a rank is counted among: a whole space, or a sample of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.inputs import Blocks, cost_blocks, error_blocks
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

_LARGEST_WHOLE: Final = 20_000  # a space up to this size is its own population
_SAMPLE: Final = 4096


@dataclass(frozen=True, eq=False)
class Population:
    """Live architectures of a space, in a fixed order, with their inputs (computed once)."""

    space: SearchSpace
    genotypes: Genotypes

    def __len__(self) -> int:
        """Number of members."""
        return len(self.genotypes)

    @cached_property
    def error_blocks(self) -> Blocks:
        """Inputs of error models."""
        return error_blocks(self.space, self.genotypes)

    @cached_property
    def cost_blocks(self) -> Blocks:
        """Inputs of cost models."""
        return cost_blocks(self.space, self.genotypes)

    @cached_property
    def _row_of(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): i for i, row in enumerate(self.genotypes.tolist())}

    def rows(self, genotypes: Genotypes) -> NDArray[np.int64]:
        """Row of each genotype, -1 for one that is no member, (n, d) -> (n,)."""
        row_of = self._row_of
        return np.array([row_of.get(tuple(g), -1) for g in genotypes.tolist()], dtype=np.int64)


def live_rows(space: SearchSpace, genotypes: Genotypes) -> NDArray[np.bool_]:
    """Which architectures depend on their input, (n, d) -> (n,)."""
    dead = [space.is_dead(space.architecture(row)) for row in genotypes]
    return ~np.array(dead, dtype=np.bool_)


@cache
def population_of(space: SearchSpace) -> Population:
    """All live architectures of a small space, or a fixed sample of a large one."""
    if space.size <= _LARGEST_WHOLE:
        genes = space.grid()
        return Population(space, genes[live_rows(space, genes)])
    rng = child_rng(0, space.name, "rank population")
    sample = space.sample(_SAMPLE, rng=rng)
    return Population(space, np.array([a.genotype for a in sample], dtype=np.int64))
