"""What the function of a cell is made of: its paths from input to output.

A path is the sequence of operators between input and output with skips left out, for example
(conv3, pool). Two cells with the same function have the same paths, so features of them do not
tell apart what the accuracy cannot. The depth of a path is its number of convolutions; means over
the paths predict trained accuracy far better than totals do, which is why both are here.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.predictors.encodings import checked_cells, live_edges
from hwnas_sdk.spaces.nasbench201 import NasBench201

Floats = NDArray[np.float64]

_NONE, _SKIP, _CONV1, _CONV3, _POOL = range(5)
_PATHS: Final = ((3,), (0, 4), (1, 5), (0, 2, 5))  # edges of the four input-output paths
_SEQUENCES: Final = tuple(
    sequence
    for length in range(4)
    for sequence in itertools.product((_CONV1, _CONV3, _POOL), repeat=length)
)
_N_CONV1: Final = np.array([s.count(_CONV1) for s in _SEQUENCES], dtype=np.float64)
_N_CONV3: Final = np.array([s.count(_CONV3) for s in _SEQUENCES], dtype=np.float64)
_N_POOL: Final = np.array([s.count(_POOL) for s in _SEQUENCES], dtype=np.float64)
_DEPTH: Final = _N_CONV1 + _N_CONV3
_NO_PATH_DEPTH: Final = 9.0


def _sequence_numbers(n_edges: int) -> NDArray[np.int64]:
    """Operators of `n_edges` edges, read as digits to base 5 -> number of their sequence or -1."""
    number = {sequence: i for i, sequence in enumerate(_SEQUENCES)}
    return np.array(
        [
            -1 if _NONE in ops else number[tuple(op for op in ops if op != _SKIP)]
            for ops in itertools.product(range(5), repeat=n_edges)
        ],
        dtype=np.int64,
    )


_NUMBER_OF: Final = {length: _sequence_numbers(length) for length in (1, 2, 3)}


def path_counts(genotypes: NDArray[np.integer]) -> Floats:
    """How often each of the 40 operator sequences joins input and output, (n, 6) -> (n, 40).

    Raises: SpaceError as `checked_cells`.
    """
    genes = checked_cells(genotypes)
    counts = np.zeros((len(genes), len(_SEQUENCES)))
    for edges in _PATHS:
        digits = 5 ** np.arange(len(edges) - 1, -1, -1)
        sequence = _NUMBER_OF[len(edges)][genes[:, edges] @ digits]
        rows = np.flatnonzero(sequence >= 0)
        counts[rows, sequence[rows]] += 1.0
    return counts


def _raw_blocks(genotypes: NDArray[np.integer]) -> tuple[Floats, ...]:
    genes = checked_cells(genotypes)
    paths = path_counts(genes)
    present = (paths > 0).astype(np.float64)
    live = live_edges(genes)
    operators = np.stack([((genes == op) & live).sum(axis=1) for op in range(1, 5)], axis=1)
    deepest = np.where(paths > 0, _DEPTH, 0.0).max(axis=1)
    deepest3 = np.where(paths > 0, _N_CONV3, 0.0).max(axis=1)
    shallowest = np.where(paths > 0, _DEPTH, _NO_PATH_DEPTH).min(axis=1)
    totals = np.column_stack(
        [
            paths.sum(axis=1),
            paths @ _DEPTH,
            paths @ _N_CONV3,
            paths @ _DEPTH**2,
            *(present @ (depth == _DEPTH) for depth in (1, 2, 3)),
            paths[:, 0],
            deepest,
            deepest3,
            shallowest,
        ]
    )
    n_paths = np.maximum(paths.sum(axis=1), 1.0)
    without_pool = _N_POOL == 0
    flat = paths[:, _DEPTH == 0].sum(axis=1)
    means = np.column_stack(
        [
            *(paths @ weight / n_paths for weight in (_DEPTH, _N_CONV3, _N_POOL, _N_CONV1)),
            np.log1p(paths @ 2.0**_DEPTH),
            np.log1p(paths @ 2.0**_N_CONV3),
            paths[:, 0] > 0,
            flat > 0,
            paths[:, _DEPTH == 1].sum(axis=1) > 0,
            flat,
            paths[:, without_pool] @ _DEPTH[without_pool],
            present[:, without_pool].sum(axis=1),
        ]
    )
    return operators.astype(np.float64), np.log1p(paths), totals, means


@cache
def _moments() -> tuple[tuple[Floats, Floats], ...]:
    """Mean and sd of each column over all live cells of the space (no labels are involved)."""
    genes = NasBench201().all_genotypes()
    genes = genes[live_edges(genes).any(axis=1)]
    return tuple((b.mean(axis=0), b.std(axis=0)) for b in _raw_blocks(genes))


def path_blocks(genotypes: NDArray[np.integer]) -> tuple[Floats, ...]:
    """Four blocks of features: operator counts, log path counts, totals, means.

    Standardised over the live cells of the space, except path counts, which are only centred so
    that rare paths do not weigh more than common ones. Shapes: (n, 6) -> (n, 4), (n, 40), (n, 11),
    (n, 12). Raises: SpaceError as `checked_cells`.
    """
    genes = checked_cells(genotypes)
    operators, paths, totals, means = (
        (block - mean) if i == 1 else (block - mean) / np.where(sd > 0, sd, 1.0)
        for i, (block, (mean, sd)) in enumerate(zip(_raw_blocks(genes), _moments(), strict=True))
    )
    return operators, paths, totals, means
