"""Which of many predicted architectures to verify.

With perfect predictions the best k are the hypervolume subset of the predicted front. Predictions
are not perfect: the front of predicted means is full of lucky errors, and k picks that all trust
the same error fail together. So the picks maximise the *expected* hypervolume of the set, over
joint draws from the predictive distribution: greedily, each pick counts only where a draw says it
improves on the earlier picks (the classic 1 - 1/e guarantee of a submodular gain).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search._gain import Gain, gain_over

Values = NDArray[np.float64]
Indices = NDArray[np.int64]

N_DRAWS = 128
POOL = 300
"""Architectures compared by their gain: those of best rank, as predicted or with luck."""

KIN_LENGTH = 8.0
"""Hamming distance over which the correlation of two prediction errors falls to 1/e."""

DRAWN_SHARE = 0.7
"""Share of the predictive sd that is drawn: part of it is label noise, which nobody can pick.

Any share from 0.25 to 1 gave the same normalised hypervolume to 0.001 (training devices of the
public tables, each left out in turn)."""

_FLOOR = 0.8
_BATCH = 32


def choose_candidates(
    values: Values,
    sd: Values | None,
    k: int,
    reference: Values | None = None,
    *,
    kin: NDArray[np.integer] | None = None,
    known: Values | None = None,
    feasible: NDArray[np.bool_] | None = None,
    group: Callable[[int], Hashable] | None = None,
    seed: int = 0,
) -> Indices:
    """Choose up to `k` architectures that together promise the largest hypervolume.

    Without `sd`: the greedy hypervolume subset of the predicted front, filled up from the next
    fronts. With `sd`: greedy expected hypervolume over draws, see the module's docstring.

    Args:
        values: predicted objectives, all minimised, (n, m).
        sd: their standard deviations, (n, m), or None where predictions are taken as exact.
        k: how many; fewer come back only when fewer are feasible and of different groups.
        reference: (m,) upper bound of what is worth having; None = the worst feasible values.
        kin: (n, d) integers; rows that differ in few columns have similar prediction errors. The
            genotypes, best with everything that does not matter set to one value. None: errors are
            independent.
        known: (j, m) values already attained; only what improves on them counts.
        feasible: (n,), False = never chosen; None = all.
        group: key of an index; no two choices share one. Asked only of what is about to be chosen.
        seed: of the draws.

    Returns: distinct indices into `values`, in the order of choosing.
    Raises: ValueError on NaN, negative sd or shapes that do not fit.
    """
    means = np.asarray(values, dtype=np.float64)
    _check(means, sd, k)
    rows = np.arange(len(means)) if feasible is None else np.flatnonzero(feasible)
    rows = rows[np.isfinite(means[rows]).all(axis=1)]
    if len(rows) == 0 or k == 0:
        return np.empty(0, dtype=np.int64)
    ideal = means[rows].min(axis=0)
    worst = means[rows].max(axis=0) if reference is None else np.asarray(reference, dtype=float)
    span = np.where(worst > ideal, worst - ideal, 1.0)
    attained = None if known is None else (np.asarray(known, dtype=np.float64) - ideal) / span
    picker = _Picker(k, group)
    spread = np.zeros_like(means) if sd is None else np.asarray(sd, dtype=np.float64)
    pool = _pool(means, spread, rows)
    if sd is None:
        points = means[pool][:, None, :]
    else:
        points = _draws(
            means[pool], spread[pool], None if kin is None else np.asarray(kin)[pool], seed
        )
    picker.pick(pool, (points - ideal) / span, attained)
    scaled = (means - ideal) / span
    while not picker.full:
        left = rows[~np.isin(rows, picker.seen)]
        if len(left) == 0:
            break
        front = left[pareto.non_dominated_mask(means[left])]
        picker.pick(front, scaled[front][:, None, :], None)
        picker.pass_over(front)
    picker.fill_up()
    return np.array(picker.chosen, dtype=np.int64)


class _Picker:
    """Greedy choice with lazy evaluation: a gain can only shrink as the set grows."""

    def __init__(self, k: int, group: Callable[[int], Hashable] | None) -> None:
        self._k = k
        self._group = group
        self._groups: set[Hashable] = set()
        self.chosen: list[int] = []
        self._passed: list[int] = []

    @property
    def full(self) -> bool:
        return len(self.chosen) >= self._k

    @property
    def seen(self) -> Indices:
        return np.array(self.chosen + self._passed, dtype=np.int64)

    def pass_over(self, rows: Indices) -> None:
        """Never look at these again."""
        self._passed.extend(rows.tolist())

    def pick(self, rows: Indices, points: Values, attained: Values | None) -> None:
        """Choose among `rows` while anything is gained; points (n, S, m) in the unit box.

        Every call starts from what is `attained` alone, so that later fronts, which gain nothing
        on earlier ones, are still spread out by their own hypervolume.
        """
        if len(rows) == 0:
            return
        n_draws = points.shape[1]
        gain = gain_over(n_draws, points.min(axis=(0, 1)))
        for point in () if attained is None else attained:
            gain.add(np.tile(point, (n_draws, 1)))
        bounds = np.full(len(rows), np.inf)
        age = np.full(len(rows), -1)
        for step in range(self._k):
            if self.full:
                return
            best = self._best(rows, points, gain, bounds, age, step)
            if best is None:
                return
            self.chosen.append(int(rows[best]))
            gain.add(points[best])
            bounds[best] = -np.inf

    def fill_up(self) -> None:
        """Add what promises nothing (the reference's own rows), best front first."""
        for row in dict.fromkeys(self._passed):
            if self.full:
                return
            if row not in self.chosen and self._is_new(row):
                self.chosen.append(row)

    def _best(
        self,
        rows: Indices,
        points: Values,
        gain: Gain,
        bounds: Values,
        age: NDArray[np.int64],
        step: int,
    ) -> int | None:
        while True:
            order = np.argsort(-bounds, kind="stable")[:_BATCH]
            best = int(order[0])
            if bounds[best] <= 0.0:
                return None
            if age[best] == step:
                if self._is_new(int(rows[best])):
                    return best
                bounds[best] = -np.inf
                self.pass_over(rows[best : best + 1])
                continue
            stale = order[(age[order] < step) & (bounds[order] > 0.0)]
            bounds[stale] = gain.gains(points[stale])
            age[stale] = step

    def _is_new(self, row: int) -> bool:
        if self._group is None:
            return True
        key = self._group(row)
        if key in self._groups:
            return False
        self._groups.add(key)
        return True


def _pool(means: Values, sd: Values, rows: Indices) -> Indices:
    """The `POOL` rows of best rank, by the means or one and a half sd to the better."""
    as_predicted = pareto.ranks(means[rows])
    with_luck = pareto.ranks(means[rows] - 1.5 * sd[rows])
    order = np.argsort(np.minimum(as_predicted, with_luck), kind="stable")
    return rows[order[:POOL]]


def _draws(means: Values, sd: Values, kin: NDArray[np.integer] | None, seed: int) -> Values:
    """Joint draws of all objectives, (n, m) -> (n, N_DRAWS, m).

    Each objective is log-normal above a floor a little below the best predicted value, with the
    predicted mean as its median: nothing is expected to be far better than all that is known.
    Errors of rows at Hamming distance h correlate with exp(-h / KIN_LENGTH).
    """
    n, m = means.shape
    rng = child_rng(seed, "search", "choose_candidates")
    root = np.eye(n)
    if kin is not None:
        distance = (kin[:, None, :] != kin[None, :, :]).sum(axis=2)
        root = np.linalg.cholesky(np.exp(-distance / KIN_LENGTH) + 1e-6 * np.eye(n))
    drawn = np.empty((n, N_DRAWS, m))
    for objective in range(m):
        best = means[:, objective].min()
        floor = best - (1.0 - _FLOOR) * abs(best)
        above = np.maximum(means[:, objective] - floor, 1e-12)[:, None]
        deviates = root @ rng.standard_normal((n, N_DRAWS))
        steps = np.minimum(DRAWN_SHARE * sd[:, objective, None] / above, _MAX_LOG_SD) * deviates
        drawn[:, :, objective] = floor + above * np.exp(steps)
    return drawn


_MAX_LOG_SD = 3.0


def _check(means: Values, sd: Values | None, k: int) -> None:
    if means.ndim != 2 or means.shape[1] == 0:
        raise ValueError(f"values must have shape (n, m), got {means.shape}")
    if np.isnan(means).any():
        raise ValueError("values hold NaN: leave out what is unknown")
    if k < 0:
        raise ValueError(f"cannot choose {k} candidates")
    if sd is not None:
        spread = np.asarray(sd)
        if spread.shape != means.shape or not (spread >= 0.0).all():
            raise ValueError(f"sd must be non-negative numbers of shape {means.shape}")
