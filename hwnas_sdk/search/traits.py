"""What a search needs to know of each architecture besides its scores, looked up once."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.types import Architecture
from hwnas_sdk.spaces import Genotypes, SearchSpace


class Traits:
    """Cached deadness and function families of one space."""

    def __init__(self, space: SearchSpace) -> None:
        """Start empty."""
        self._space = space
        self._dead: dict[tuple[int, ...], bool] = {}
        self._family: dict[tuple[int, ...], Hashable] = {}

    def dead(self, genotypes: Genotypes) -> NDArray[np.bool_]:
        """Which architectures ignore their input, (n, d) -> (n,)."""
        return np.fromiter(
            (self._is_dead(tuple(genes)) for genes in genotypes.tolist()),
            dtype=np.bool_,
            count=len(genotypes),
        )

    def family(self, genotype: tuple[int, ...]) -> Hashable:
        """Key that architectures of equal function share."""
        known = self._family.get(genotype)
        if known is None:
            known = self._space.family(Architecture(self._space.name, genotype))
            self._family[genotype] = known
        return known

    def _is_dead(self, genotype: tuple[int, ...]) -> bool:
        known = self._dead.get(genotype)
        if known is None:
            known = self._space.is_dead(Architecture(self._space.name, genotype))
            self._dead[genotype] = known
        return known


@lru_cache(maxsize=8)
def traits_of(space: SearchSpace) -> Traits:
    """The traits of a space; one table per space object."""
    return Traits(space)
