"""Which network to measure next on a device, given what was measured there so far.

A fixed reference set is chosen before the device is known. Once a few networks are measured, the
posterior of `LatencyPrior.adapt` says where this device is still uncertain: how much noise it has
and how far it lies from the known devices moves with every measurement. `next_reference` looks one
measurement ahead: under the posterior as a Gaussian, measuring the cell c takes

    sum over the pool's cells i of  cov(i, c)^2 / (var(c) + noise^2),   all as shares of latency,

off the total predictive variance, whatever its value turns out to be (an I-optimal design, one
step at a time); the cell that takes off most is measured next. The pool stands for the space, so
that the extreme cells D-optimality loves are taken only as far as typical ones gain by them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.bayes import LatencyModel, LatencyPrior
from hwnas_sdk.predictors.metrics import Z_90

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

N_START: Final = 7
"""Networks of the fixed design measured before the device's own posterior chooses."""

N_CANDIDATES: Final = 2000
N_POOL: Final = 400
"""Cells that may be chosen, and those of them that stand for the space, drawn once."""


def candidate_rows(eligible: NDArray[np.bool_], *, n: int = N_CANDIDATES, seed: int = 0) -> Indices:
    """Rows that may be chosen: at most `n` eligible ones, drawn once by `seed`, in random order.

    The first `N_POOL` of them stand for the space.

    Shapes: eligible (n_cells,) -> (<= n,). Raises: ConfigError when no row is eligible.
    """
    rows = np.flatnonzero(eligible)
    if not rows.size:
        raise ConfigError("no live cell to choose from")
    drawn: Indices = child_rng(seed, "active references").permutation(rows)[:n].astype(np.int64)
    return drawn


def variance_reduction(model: LatencyModel, candidates: Floats, pool: Floats) -> Floats:
    """How much of the pool's mean relative variance measuring each candidate would take off.

    Shapes: candidates (n, F), pool (m, F) features -> (n,). Unit: squared share of a cell's typical
    latency; 0 or more.
    """
    prior = model.prior
    x, y = prior.standardise(candidates), prior.standardise(pool)
    x, y = x / prior.typical(x)[:, None], y / prior.typical(y)[:, None]
    spread = x @ model.covariance
    total = np.maximum(np.einsum("nf,nf->n", spread, x), 0.0) + model.noise_variance
    reduction: Floats = ((spread @ y.T) ** 2).mean(axis=1) / total
    return reduction


def next_reference(
    model: LatencyModel,
    features: Floats,
    rows: Indices,
    *,
    taken: Collection[int] = (),
) -> int | None:
    """Row of the cell whose measurement is expected to teach most; None when none is left.

    Args:
        model: posterior given what was measured.
        features: of all cells, (n, F).
        rows: the candidates among them, see `candidate_rows`.
        taken: rows not to choose again: measured, or impossible to measure.
    """
    open_rows = rows[~np.isin(rows, list(taken))]
    if not open_rows.size:
        return None
    gains = variance_reduction(model, features[open_rows], features[rows[:N_POOL]])
    return int(open_rows[gains.argmax()])


def half_width_pct(model: LatencyModel, pool: Floats) -> float:
    """Median over the pool of the relative half-width of the 90 % interval, in percent.

    The interval is that of one measured latency: noise included, so it cannot fall below what the
    device's own scatter allows. Infinite while the predictions are not positive.
    """
    prediction = model.predict(pool)
    width = np.full(len(prediction.mean), np.inf)
    sound = prediction.mean > 0
    width[sound] = Z_90 * prediction.sd[sound] / prediction.mean[sound]
    return float(100.0 * np.median(width))


def active_references(
    prior: LatencyPrior,
    features: Floats,
    k: int,
    *,
    start: Indices,
    measure: Callable[[int], float],
    eligible: NDArray[np.bool_],
    seed: int = 0,
) -> Indices:
    """Choose and measure `k` cells one after the other, in the order of choosing.

    Args:
        prior: what is known before measuring.
        features: of the n candidates, (n, F).
        k: how many to choose.
        start: rows measured first; the first `k` of them when there are more.
        measure: row -> its latency; asked for chosen rows alone, for each once.
        eligible: which candidates may be chosen, (n,); live cells only.
        seed: of the candidates' draw.

    Shapes: -> (k,). Raises: ConfigError when fewer than k are eligible.
    """
    allowed = np.asarray(eligible, dtype=bool)
    if not 0 <= k <= int(allowed.sum()):
        raise ConfigError(f"cannot pick {k} references from {int(allowed.sum())} candidates")
    rows = candidate_rows(allowed, n=max(k, N_CANDIDATES), seed=seed)
    chosen = [int(row) for row in start[:k]]
    latencies = [measure(row) for row in chosen]
    while len(chosen) < k:
        model = prior.adapt(features[chosen], np.array(latencies))
        row = next_reference(model, features, rows, taken=chosen)
        assert row is not None
        chosen.append(row)
        latencies.append(measure(row))
    return np.array(chosen, dtype=np.int64)
