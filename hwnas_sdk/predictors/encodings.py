"""Structural features of NAS-Bench-201 cells, for whole genotype matrices at once.

Features come in groups because a prior treats a group as one kind of effect: what every operator
costs wherever it stands (`raw_counts`), what only operators on a path from input to output cost
(`live_counts`, on runtimes that remove dead branches), where an operator stands, which operators
compete or run in parallel, and how long the critical path is. Two groups describe which edges are
``none``: converters for phones fold some dead branches away and keep others, depending on the
whole pattern, so a dead operator may cost something under one pattern and nothing under another.

A matrix does not say of which space it is: who knows passes `space`, and another is refused.
`encode.encode` describes the architectures of any registered space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SPACE: Final = "nasbench201"
N_EDGES: Final = 6
N_OPERATORS: Final = 5
_NONE, _SKIP, _CONV1, _CONV3, _POOL = range(N_OPERATORS)
_SHORT: Final = ("none", "skip", "conv1", "conv3", "pool")
_EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_COMPUTING: Final = (_CONV1, _CONV3, _POOL)
# Relative cost of (none, skip, conv1x1, conv3x3, pool) under which a path is "longest".
_PATH_WEIGHTS: Final[dict[str, tuple[float, ...]]] = {
    "hops": (0.0, 1.0, 1.0, 1.0, 1.0),
    "operators": (0.0, 0.0, 1.0, 1.0, 1.0),
    "convs": (0.0, 0.0, 1.0, 1.0, 0.0),
    "conv3": (0.0, 0.0, 0.0, 1.0, 0.0),
    "cost": (0.0, 0.0, 0.3, 1.0, 0.4),
}
_PAIRS: Final = ((_SKIP, _SKIP), (_SKIP, _CONV1), (_SKIP, _CONV3), (_SKIP, _POOL),
                 (_CONV1, _CONV1), (_CONV1, _CONV3), (_CONV1, _POOL),
                 (_CONV3, _CONV3), (_CONV3, _POOL), (_POOL, _POOL))  # fmt: skip


def checked_cells(genotypes: ArrayLike, *, space: SearchSpace | None = None) -> NDArray[np.int64]:
    """NAS-Bench-201 genotypes as (n, 6) int64. `space` is the space they are of, if it is known.

    Raises: SpaceError for what is not a matrix of NAS-Bench-201 genotypes, or for another `space`.
    """
    if space is not None and space.name != SPACE:
        raise SpaceError(
            f"this describes {SPACE} cells, not architectures of {space.name}",
            code="other_space",
            hint="`hwnas_sdk.predictors.encode.encode` serves any registered space",
        )
    return get_space(SPACE).checked(genotypes)


def live_edges(genotypes: NDArray[np.integer]) -> Bools:
    """Which edges lie on a path of non-``none`` edges from cell input to output, (n, 6)."""
    used = np.asarray(genotypes) != _NONE
    e01, e02, e12, e03, e13, e23 = used.T
    from_input_2 = e02 | (e12 & e01)
    to_output_1 = e13 | (e12 & e23)
    live = (e01 & to_output_1, e02 & e23, e12 & e01 & e23, e03, e13 & e01, e23 & from_input_2)
    return np.stack(live, axis=1)


def executed_cells(genotypes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Cells whose dead edges are set to ``none``, (n, 6) -> (n, 6)."""
    executed: NDArray[np.int64] = np.where(live_edges(genotypes), genotypes, _NONE).astype(np.int64)
    return executed


def longest_path(
    genotypes: NDArray[np.integer],
    weights: Sequence[float],
    live: Bools,
    *,
    sums: Sequence[float] = (0.0, 0.0, 0.0),
) -> Floats:
    """Largest sum of operator `weights` over a path of `live` edges; 0 without a path, (n,).

    `sums` are the weights of the nodes 1, 2, 3 themselves.
    """
    cost = np.where(live, np.asarray(weights, dtype=np.float64)[genotypes], -np.inf)
    at: list[Floats] = [np.zeros(len(cost))]
    for target, own in zip((1, 2, 3), sums, strict=True):
        into = [at[s] + cost[:, e] for e, (s, t) in enumerate(_EDGES) if t == target]
        at.append(np.max(into, axis=0) + own)
    longest: Floats = np.where(np.isfinite(at[3]), at[3], 0.0)
    return longest


def _counts(present: Bools) -> Floats:
    """(n, 6, 5) one-hot -> number of edges per operator but ``none``, (n, 4)."""
    counts: Floats = present[:, :, 1:].sum(axis=1).astype(np.float64)
    return counts


def _one_hot(present: Bools) -> Floats:
    return present[:, :, 1:].reshape(len(present), N_EDGES * (N_OPERATORS - 1)).astype(np.float64)


def _products(counts: Floats) -> Floats:
    return np.stack([counts[:, a - 1] * counts[:, b - 1] for a, b in _PAIRS], axis=1)


def _in_degree(mask: Bools) -> tuple[NDArray[np.int64], ...]:
    return tuple(
        mask[:, [e for e, (_, t) in enumerate(_EDGES) if t == node]].sum(axis=1)
        for node in (1, 2, 3)
    )


def _pattern(genotypes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Which edges are in use, as a number 0..63 (bit e = edge e), (n,)."""
    powers = 2 ** np.arange(N_EDGES)
    number: NDArray[np.int64] = ((np.asarray(genotypes) != _NONE) @ powers).astype(np.int64)
    return number


def _live_patterns() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patterns of live cells, and those among them that leave a used edge dead."""
    bits = (np.arange(2**N_EDGES)[:, None] >> np.arange(N_EDGES)) & 1
    live = live_edges(bits)
    connected = live.any(axis=1)
    dead = ((bits != 0) & ~live).any(axis=1)
    return np.flatnonzero(connected), np.flatnonzero(connected & dead)


_LIVE_PATTERNS, _PATTERNS_WITH_DEAD = _live_patterns()


def _pattern_features(genotypes: NDArray[np.integer], dead_counts: Floats) -> tuple[Floats, Floats]:
    """Indicators of the patterns (n, 47) and dead operator counts per pattern (n, 32 * 4)."""
    pattern = _pattern(genotypes)[:, None]
    indicators = (pattern == _LIVE_PATTERNS).astype(np.float64)
    chosen = (pattern == _PATTERNS_WITH_DEAD).astype(np.float64)
    return indicators, (chosen[:, :, None] * dead_counts[:, None, :]).reshape(
        len(pattern), 4 * len(_PATTERNS_WITH_DEAD)
    )


def _structure(genotypes: NDArray[np.integer], live: Bools) -> tuple[Floats, tuple[str, ...]]:
    used = genotypes != _NONE
    columns: list[Floats] = []
    names: list[str] = []

    def put(name: str, values: ArrayLike) -> None:
        names.append(name)
        columns.append(np.asarray(values, dtype=np.float64))

    for name, weights in _PATH_WEIGHTS.items():
        put(f"live_path_{name}", longest_path(genotypes, weights, live))
    for kind, mask in (("raw", used), ("live", live)):
        computing = mask & np.isin(genotypes, _COMPUTING)
        put(f"{kind}_adds", sum(np.maximum(d - 1, 0) for d in _in_degree(mask)))
        put(f"{kind}_conv_adds", sum(np.maximum(d - 1, 0) for d in _in_degree(computing)))
        put(f"{kind}_computing", computing.sum(axis=1))
        put(f"{kind}_any_conv3", ((genotypes == _CONV3) & mask).any(axis=1))
        put(f"{kind}_any_conv1", ((genotypes == _CONV1) & mask).any(axis=1))
        put(f"{kind}_any_pool", ((genotypes == _POOL) & mask).any(axis=1))
    put("dead_edges", (used & ~live).sum(axis=1))
    put("dead_cell", ~live.any(axis=1))
    # Operators beside the critical path: what a device with parallel streams can hide.
    cost = np.asarray(_PATH_WEIGHTS["cost"])[genotypes]
    total = np.where(live, cost, 0.0).sum(axis=1)
    put("live_beside_path", total - longest_path(genotypes, _PATH_WEIGHTS["cost"], live))
    put("live_from_input", live[:, [0, 1, 3]].sum(axis=1))
    put("live_nodes", np.stack([live[:, 0], live[:, [1, 2]].any(axis=1)]).sum(axis=0))
    return np.stack(columns, axis=1), tuple(names)


def _bits(pattern: int) -> str:
    return "".join(str((pattern >> e) & 1) for e in range(N_EDGES))


def _names() -> tuple[tuple[str, tuple[str, ...]], ...]:
    ops = _SHORT[1:]
    edges = [f"{op}_{s}{t}" for s, t in _EDGES for op in ops]
    pairs = [f"{_SHORT[a]}*{_SHORT[b]}" for a, b in _PAIRS]
    _, structure = _structure(np.zeros((1, N_EDGES), dtype=np.int64), np.zeros((1, 6), dtype=bool))
    return (
        ("constant", ("constant",)),
        ("raw_counts", tuple(f"raw_{op}" for op in ops)),
        ("live_counts", tuple(f"live_{op}" for op in ops)),
        ("structure", structure),
        ("raw_products", tuple(f"raw_{pair}" for pair in pairs)),
        ("live_products", tuple(f"live_{pair}" for pair in pairs)),
        ("raw_edges", tuple(f"raw_{edge}" for edge in edges)),
        ("live_edges", tuple(f"live_{edge}" for edge in edges)),
        ("patterns", tuple(f"pattern_{_bits(p)}" for p in _LIVE_PATTERNS)),
        (
            "pattern_dead",
            tuple(f"pattern_{_bits(p)}_dead_{op}" for p in _PATTERNS_WITH_DEAD for op in ops),
        ),
    )


def structural_features(
    genotypes: NDArray[np.integer], *, space: SearchSpace | None = None
) -> Floats:
    """Features of cells, unscaled.

    Shapes: genotypes (n, 6) -> (n, F), columns as in `FEATURE_NAMES`.
    Raises: SpaceError as `checked_cells`.
    """
    genes = checked_cells(genotypes, space=space)
    live = live_edges(genes)
    raw_hot = genes[:, :, None] == np.arange(N_OPERATORS)
    live_hot = raw_hot & live[:, :, None]
    raw, alive = _counts(raw_hot), _counts(live_hot)
    structure, _ = _structure(genes, live)
    return np.concatenate(
        [
            np.ones((len(genes), 1)),
            raw,
            alive,
            structure,
            _products(raw),
            _products(alive),
            _one_hot(raw_hot),
            _one_hot(live_hot),
            *_pattern_features(genes, raw - alive),
        ],
        axis=1,
    )


FEATURE_GROUPS: Final[dict[str, slice]] = {}
_start = 0
for _group, _members in _names():
    FEATURE_GROUPS[_group] = slice(_start, _start + len(_members))
    _start += len(_members)
FEATURE_NAMES: Final[tuple[str, ...]] = tuple(n for _, members in _names() for n in members)
N_FEATURES: Final = len(FEATURE_NAMES)


def genotypes_of(features: Floats) -> NDArray[np.int64]:
    """Inverse of `structural_features`, (n, F) -> (n, 6)."""
    hot = features[:, FEATURE_GROUPS["raw_edges"]].reshape(-1, N_EDGES, N_OPERATORS - 1)
    genotypes: NDArray[np.int64] = (hot @ np.arange(1, N_OPERATORS)).astype(np.int64)
    return genotypes
