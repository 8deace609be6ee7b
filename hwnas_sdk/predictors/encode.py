"""Every encoding of an architecture behind one function, for any registered space.

    encode(space, genotypes, "one-hot")        # `ENCODINGS` lists the kinds and their shapes

A space needs nothing but what docs/howto-search-space.md asks for: its choices and its layer
graphs. NAS-Bench-201 is described by its cell where that says more. No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, SPACE, structural_features
from hwnas_sdk.predictors.graphs import (
    OperatorGraphs,
    architecture_features,
    checked_genotypes,
    one_hot,
    operator_graphs,
    tokens,
)
from hwnas_sdk.predictors.layer_graphs import LAYER_FEATURES, layer_features
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]
Encoded = Floats | NDArray[np.int64] | OperatorGraphs


def structural(space: SearchSpace, genotypes: NDArray[np.integer]) -> Floats:
    """Operators, live operators and lengths of paths, unscaled: (n, d) -> (n, F).

    Columns as in `structural_names`: those of the cell for NAS-Bench-201, for another space those
    of `layer_graphs.layer_features` on its default dataset (about a millisecond an architecture).
    Raises: SpaceError for what is no genotype matrix of `space`.
    """
    if space.name == SPACE:
        return structural_features(genotypes, space=space)
    genes = checked_genotypes(space, genotypes)
    rows = [layer_features(space.layers(space.architecture(row))) for row in genes]
    return np.array(rows, dtype=np.float64).reshape(-1, len(LAYER_FEATURES))


def structural_names(space: SearchSpace) -> tuple[str, ...]:
    """Columns of `structural`."""
    return FEATURE_NAMES if space.name == SPACE else LAYER_FEATURES


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to describe architectures.

    Attributes:
        of: takes a space and genotypes (n, d).
        shape: of the answer for n architectures of d decisions.
        summary: one line.
        injective: whether two different genotypes always have different codes.
    """

    of: Callable[[SearchSpace, NDArray[np.integer]], Encoded]
    shape: str
    summary: str
    injective: bool = False


_GRAPHS: Final = "nodes (n, N, O), adjacency (n, N, N)"
ENCODINGS: Final[dict[str, Encoding]] = {
    "features": Encoding(
        architecture_features, "(n, 8)", "the 8 architecture features of HW-PR-NAS, unscaled"
    ),
    "structural": Encoding(
        structural, "(n, F)", "operators, live operators and paths; columns: structural_names"
    ),
    "tokens": Encoding(
        tokens, "(n, d + 2)", "BOS, one token per decision, EOS; int64", injective=True
    ),
    "one-hot": Encoding(
        one_hot, "(n, sum of choices)", "one column per choice of each decision", injective=True
    ),
    "graph": Encoding(
        partial(operator_graphs, form="plain"),
        _GRAPHS, "operators on nodes, without a global node", injective=True,
    ),
    "graph-help": Encoding(
        partial(operator_graphs, form="help"),
        _GRAPHS, "as HELP and MODNAS: a global node last, unit diagonal", injective=True,
    ),
    "graph-brp": Encoding(
        partial(operator_graphs, form="brp"),
        _GRAPHS, "as BRP-NAS: skips contracted, dead operators pruned, a global node first",
    ),
}  # fmt: skip


def encode(space: SearchSpace, genotypes: NDArray[np.integer], kind: str) -> Encoded:
    """Describe architectures of any registered space.

    Args:
        space: whose they are.
        genotypes: n architectures, (n, d) whole numbers.
        kind: a key of `ENCODINGS`, which states the shape of the answer.

    Raises: ConfigError for an unknown kind; SpaceError for what is no genotype matrix of `space`.
    """
    encoding = ENCODINGS.get(kind)
    if encoding is None:
        raise ConfigError(f"unknown encoding {kind!r}", hint=f"one of {', '.join(ENCODINGS)}")
    return encoding.of(space, genotypes)
