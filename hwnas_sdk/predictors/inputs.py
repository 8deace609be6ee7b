"""What a model of error or cost looks at, in blocks, for any registered space.

NAS-Bench-201 has inputs of its own: a cell's error follows from its paths, its cost from which
operators stand where, live and dead. Other spaces have architecture features and the one-hot code.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.encodings import (
    FEATURE_GROUPS,
    SPACE,
    executed_cells,
    live_edges,
    structural_features,
)
from hwnas_sdk.predictors.graphs import architecture_features, checked_genotypes, one_hot
from hwnas_sdk.predictors.paths import path_blocks
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]
Blocks = tuple[Floats, ...]

_COST_GROUPS: Final = (
    "raw_counts", "live_counts", "structure", "raw_edges", "live_edges", "patterns",
)  # fmt: skip
# An indicator of a rare pattern must not weigh more than one of a common one.
_NOT_STANDARDISED: Final = ("patterns",)
_N_FOR_MOMENTS: Final = 1000


def error_blocks(space: SearchSpace, genotypes: NDArray[np.integer]) -> Blocks:
    """Inputs of a model of a trained network's error, (n, d) -> blocks of (n, F_i).

    Raises: SpaceError for what is not a genotype matrix of `space`.
    """
    genes = checked_genotypes(space, genotypes)
    return path_blocks(genes) if space.name == SPACE else _general_blocks(space, genes)


def cost_blocks(space: SearchSpace, genotypes: NDArray[np.integer]) -> Blocks:
    """Inputs of a model of latency or energy, (n, d) -> blocks of (n, F_i).

    Raises: SpaceError for what is not a genotype matrix of `space`.
    """
    genes = checked_genotypes(space, genotypes)
    if space.name != SPACE:
        return _general_blocks(space, genes)
    features = structural_features(genes)
    center, scale = _cost_moments()
    features = (features - center) * scale
    return tuple(features[:, FEATURE_GROUPS[group]] for group in _COST_GROUPS)


def executed_genotypes(
    space: SearchSpace, genotypes: NDArray[np.integer]
) -> NDArray[np.int64] | None:
    """Genotypes whose dead operators are left out, (n, d) -> (n, d); None where none can be dead.

    Raises: SpaceError for what is not a genotype matrix of `space`.
    """
    genes = checked_genotypes(space, genotypes)
    return executed_cells(genes) if space.name == SPACE else None


@cache
def _cost_moments() -> tuple[Floats, Floats]:
    """Centre and 1 / sd of each column over the live cells of the space; no labels involved."""
    genes = get_space(SPACE).grid()
    features = structural_features(genes[live_edges(genes).any(axis=1)])
    center, sd = features.mean(axis=0), features.std(axis=0)
    scale = np.where(sd > 0, 1.0 / np.where(sd > 0, sd, 1.0), 0.0)
    for group in _NOT_STANDARDISED:
        center[FEATURE_GROUPS[group]], scale[FEATURE_GROUPS[group]] = 0.0, 1.0
    return center, scale


def _general_blocks(space: SearchSpace, genes: NDArray[np.int64]) -> Blocks:
    center, scale = _feature_moments(space)
    return ((_logged(space, genes) - center) * scale, one_hot(space, genes))


def _logged(space: SearchSpace, genes: NDArray[np.int64]) -> Floats:
    features = architecture_features(space, genes)
    features[:, :2] = np.log1p(features[:, :2])  # operations and parameters span decades
    return features


@cache
def _feature_moments(space: SearchSpace) -> tuple[Floats, Floats]:
    rng = child_rng(0, space.name, "feature moments")
    features = _logged(space, space.uniform(_N_FOR_MOMENTS, rng))
    center, sd = features.mean(axis=0), features.std(axis=0)
    return center, np.where(sd > 0, 1.0 / np.where(sd > 0, sd, 1.0), 0.0)
