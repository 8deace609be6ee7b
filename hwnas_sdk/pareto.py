"""Pareto dominance and quality indicators; every objective is minimised.

Typed, NaN-refusing wrappers over moocore (C, exact). u dominates v when u <= v in every objective
and u < v in one; equal points do not dominate each other, so duplicates share a rank and are all
kept. Infinity means "worst possible" and is allowed where a rank is asked for, nowhere else.

Sources: Zitzler & Thiele 1998 (hypervolume), Deb et al. 2002 (non-dominated sorting), Ishibuchi et
al. 2015 (GD+, IGD+).
"""

from __future__ import annotations

from typing import Final

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # (n, m)

_LARGE_SET: Final = 64  # from which sorting one by one is faster than comparing all pairs
_CHUNK: Final = 4_000_000  # pairs compared at once


def non_dominated_mask(points: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates; all copies of a duplicate are kept.

    Shapes: points (n, m) -> (n,).
    Raises: ValueError on NaN or a wrong shape.
    """
    values = _points(points)
    if len(values) == 0:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(values, keep_weakly=True), dtype=np.bool_)


def ranks(points: ArrayLike) -> NDArray[np.int64]:
    """Front each point belongs to; 0 is the best, duplicates share a rank.

    Shapes: points (n, m) -> (n,).
    Raises: ValueError on NaN or a wrong shape.
    """
    values = _points(points)
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(values), dtype=np.int64)


def dominates(first: Points, second: Points) -> NDArray[np.bool_]:
    """Whether points of `first` dominate those of `second`, broadcast over all axes but the last.

    Shapes: (..., m), (..., m) -> (...).
    """
    found = (first <= second).all(axis=-1) & (first < second).any(axis=-1)
    return np.asarray(found, dtype=np.bool_)


def ranks_of_sets(sets: Points) -> NDArray[np.int64]:
    """As `ranks`, of many sets of one size at once, (s, k, m) -> (s, k). NaN is not looked for."""
    n_sets, size, _ = sets.shape
    if size > _LARGE_SET:
        return np.array([ranks(points) for points in sets], dtype=np.int64)
    found = np.zeros((n_sets, size), dtype=np.int64)
    step = max(_CHUNK // max(size * size, 1), 1)
    for start in range(0, n_sets, step):
        found[start : start + step] = _longest_chains(sets[start : start + step])
    return found


def _longest_chains(sets: Points) -> NDArray[np.int64]:
    """Length of the longest chain of dominators of each point: its rank, (s, k, m) -> (s, k)."""
    above = dominates(sets[:, :, None, :], sets[:, None, :, :])
    found = np.zeros(sets.shape[:2], dtype=np.int64)
    while True:
        deeper = np.where(above, found[:, :, None] + 1, 0).max(axis=1, initial=0)
        if (deeper == found).all():
            return found
        found = deeper


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume dominated by `points` and bounded by `reference`.

    Points that are not below the reference in every objective add nothing; no points: 0.0.

    Shapes: points (n, m), reference (m,). Unit: product of the objectives' units.
    Raises: ValueError on NaN, minus infinity or shapes that do not fit.
    """
    values = _points(points)
    bound = _reference(reference, values.shape[1])
    inside = values[(values < bound).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    if not np.isfinite(inside).all() or not np.isfinite(bound).all():
        raise ValueError("the hypervolume of unbounded points is infinite")
    return float(moocore.hypervolume(inside, ref=bound))


def gd(points: ArrayLike, front: ArrayLike) -> float:
    """Generational distance: mean distance from a point to the closest member of `front`.

    The plain mean of Euclidean distances (no exponent), as pymoo computes it.

    Shapes: points (n, m), front (k, m); scale the objectives alike first.
    Raises: ValueError on NaN, infinity, an empty set or shapes that do not fit.
    """
    found, true = _pair(points, front)
    # moocore has no GD; GD of S against Z is IGD of Z against S.
    return float(moocore.igd(true, ref=found))


def igd(points: ArrayLike, front: ArrayLike) -> float:
    """Inverted generational distance: mean distance from a member of `front` to the closest point.

    Shapes: points (n, m), front (k, m); scale the objectives alike first.
    Raises: ValueError on NaN, infinity, an empty set or shapes that do not fit.
    """
    found, true = _pair(points, front)
    return float(moocore.igd(found, ref=true))


def gd_plus(points: ArrayLike, front: ArrayLike) -> float:
    """GD that counts only what a point is worse by: mean over s of min over z of |max(s - z, 0)|.

    Shapes: points (n, m), front (k, m); scale the objectives alike first.
    Raises: ValueError on NaN, infinity, an empty set or shapes that do not fit.
    """
    found, true = _pair(points, front)
    # IGD+ averages over its `ref` and counts what the other set is worse by. With the sets swapped
    # the sign of the difference turns round, which `maximise` undoes.
    return float(moocore.igd_plus(true, ref=found, maximise=True))


def igd_plus(points: ArrayLike, front: ArrayLike) -> float:
    """IGD that counts only what a point is worse by: mean over z of min over s of |max(s - z, 0)|.

    Unlike IGD it never prefers a set to one that dominates it.

    Shapes: points (n, m), front (k, m); scale the objectives alike first.
    Raises: ValueError on NaN, infinity, an empty set or shapes that do not fit.
    """
    found, true = _pair(points, front)
    return float(moocore.igd_plus(found, ref=true))


def _points(points: ArrayLike) -> Points:
    values = np.ascontiguousarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"points must have shape (n, m), got {values.shape}")
    if np.isnan(values).any():
        raise ValueError("points hold NaN: a missing objective has no place in a front")
    return values


def _reference(reference: ArrayLike, n_objectives: int) -> NDArray[np.float64]:
    bound = np.ascontiguousarray(reference, dtype=np.float64)
    if bound.shape != (n_objectives,):
        raise ValueError(f"the reference must have shape ({n_objectives},), got {bound.shape}")
    if np.isnan(bound).any():
        raise ValueError("the reference point holds NaN")
    return bound


def _pair(points: ArrayLike, front: ArrayLike) -> tuple[Points, Points]:
    found, true = _points(points), _points(front)
    if found.shape[1] != true.shape[1]:
        raise ValueError(f"{found.shape[1]} objectives against {true.shape[1]} of the front")
    for name, values in (("points", found), ("the front", true)):
        if len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite and not empty to measure a distance")
    return found, true
