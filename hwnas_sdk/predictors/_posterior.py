"""Posterior of a new device's latency weights, averaged over hyper-parameters and outliers.

A measurement that something else on the board disturbed is too slow, sometimes several times. One
of those among ten would bend the whole model, so the posterior also averages over which rows are
outliers: under such a hypothesis the row is left out and costs a fixed, small probability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

_NEGLIGIBLE: Final = 1e-4  # posterior probability below which a grid point is dropped
_LEAST_ROWS: Final = 5  # with fewer rows nothing tells an outlier from a device unlike the others
_FEW_ROWS: Final = 40  # up to this many, outliers are tried one by one
_MOST_ONE_BY_ONE: Final = 2
_N_CANDIDATES: Final = 3
_SUSPECT_SD: Final = 1.5  # leave-one-out deviation of a row worth trying to leave out
_CLEAR_SD: Final = 5.0  # of a row left out at once where rows are many


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """Hyper-parameters, chosen on the training devices only.

    Attributes:
        scale_sd: a, uncertainty of the device's scale beyond the robust estimate.
        transfer_sd: alpha, weight of the known devices' covariance.
        group_sd: feature group -> sd of a device's own deviation per feature, share of the scale.
        noise_grid: relative noise levels; `transfer_grid`: values of t; `own_grid`: values of b;
            `sums_grid`: values of c, of a device like no known one (see `PriorParts`).
        sums_own: b of such a device.
        noise_log_sd: width of the log-normal noise prior of a device unlike all known ones.
        kin_log_sd: the same for a device like a known one, around that one's noise.
        kin_distance: relative distance of references at which two devices are alike.
        outlier_rate: how often a measurement is disturbed; 0 trusts every one.
        outlier_density: of a disturbed one's excess, per share of the typical latency.
        ridge: regularisation of a known device's weights, in rows.
    """

    scale_sd: float = 0.3
    transfer_sd: float = 0.8
    group_sd: Mapping[str, float] = field(
        default_factory=lambda: {
            "constant": 3.0,
            "raw_counts": 0.3,
            "live_counts": 0.03,
            "structure": 0.005,
            "live_products": 0.003,
            "raw_edges": 0.005,
            "live_edges": 0.005,
            "patterns": 0.003,
            "pattern_dead": 0.02,
        }
    )
    noise_grid: tuple[float, ...] = (
        0.0005, 0.001, 0.0015, 0.0025, 0.004, 0.0065, 0.01, 0.016, 0.026, 0.042, 0.07, 0.11, 0.18,
        0.3,
    )  # fmt: skip
    transfer_grid: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    own_grid: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    sums_grid: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    sums_own: float = 0.1
    noise_log_sd: float = 1.5
    kin_log_sd: float = 0.5
    kin_distance: float = 0.05
    outlier_rate: float = 0.02
    outlier_density: float = 0.3
    ridge: float = 3.0


class GridPoint(NamedTuple):
    """Factors of the parts of the prior covariance: t, b and c."""

    transfer: float
    own: float
    sums: float


def grid_points(settings: PriorSettings) -> tuple[GridPoint, ...]:
    """Every combination of t and b, and every c with a b of its own."""
    near = [GridPoint(t, b, 0.0) for t in settings.transfer_grid for b in settings.own_grid]
    return (*near, *(GridPoint(0.0, settings.sums_own, c) for c in settings.sums_grid))


@dataclass(frozen=True, slots=True)
class PriorParts:
    """Prior covariance of the weights, taken apart by what scales it, each part (F, F).

    It is scale + t^2 known + b^2 own + c^2 sums. With c = 0 a device differs from a mixture of the
    known ones in every way a little; with t = 0 and c > 0 its operators cost something else
    altogether and little beside them matters: an accelerator that runs one after the other. Without
    that little (b = 0) ten values are explained too well, and the intervals are too narrow.
    """

    scale: Floats
    known: Floats
    own: Floats
    sums: Floats

    def at(self, point: GridPoint) -> Floats:
        """The covariance at one grid point, (F, F)."""
        total: Floats = self.scale + point.transfer**2 * self.known + point.own**2 * self.own
        return total + point.sums**2 * self.sums

    def each(self, change: Callable[[Floats], Floats]) -> PriorParts:
        """All parts changed alike."""
        return PriorParts(*map(change, (self.scale, self.known, self.own, self.sums)))


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is known of a device's weights after its measurements.

    Attributes:
        shift: of the prior mean, (F,).
        covariance: (F, F).
        noise_variance: mean over the grid.
        outlier_probability: of each row, (k,).
        log_evidence: of the rows, averaged over the grid and outliers.
    """

    shift: Floats
    covariance: Floats
    noise_variance: float
    outlier_probability: Floats
    log_evidence: float


@dataclass(frozen=True, slots=True)
class _Solved:
    """One point of the grid with all noise levels; eigenvectors of the rows' covariance."""

    point: GridPoint
    vectors: Floats  # (k, k)
    along: Floats  # residual in their coordinates, (k,)
    totals: Floats  # eigenvalues plus noise, (n_noise, k)


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """The grid, given which rows are no outliers."""

    kept: Indices
    rows_given: bool  # False: compressed to as many as there are features
    crossed: PriorParts  # covariance times rows, (F, k) each
    solved: tuple[_Solved, ...]
    log_joint: Floats  # (n_points, n_noise)

    @property
    def log_evidence(self) -> float:
        return float(np.logaddexp.reduce(self.log_joint, axis=None))

    def probability(self) -> Floats:
        share: Floats = np.exp(self.log_joint - self.log_evidence)
        return share

    def leave_one_out(self) -> Floats:
        """Deviation of each kept row from what the others predict, in its sd, (k,)."""
        total = np.zeros(len(self.kept))
        for at, share in zip(self.solved, self.probability(), strict=True):
            for level in np.flatnonzero(share > _NEGLIGIBLE):
                precision = (at.vectors**2) @ (1.0 / at.totals[level])
                weighed = at.vectors @ (at.along / at.totals[level])
                total += share[level] * weighed / np.sqrt(precision)
        return total


def condition(
    parts: PriorParts,
    x: Floats,
    residual: Floats,
    *,
    settings: PriorSettings,
    log_noise: tuple[float, float],
    log_factor: Floats | None = None,
    foldable: Bools | None = None,
) -> Posterior:
    """Posterior of the weights around the prior mean, averaged over the grid and outliers.

    Args:
        parts: prior covariance of the weights.
        x: rows whitened so that all have one noise level, (k, F), k >= 1.
        residual: what the prior mean leaves of their values, (k,).
        settings: the grid.
        log_noise: mean and sd of the prior of the log noise.
        log_factor: log of how much noisier than the device's own noise each row is, (k,).
        foldable: rows whose network has operators a converter may remove, (k,); these can be
            outliers on the fast side too.
    """
    wider = np.zeros(len(x)) if log_factor is None else log_factor
    either_side = np.zeros(len(x), dtype=np.bool_) if foldable is None else foldable
    everything = np.arange(len(x))

    def suppose(kept: Indices) -> _Hypothesis:
        left_out = np.setdiff1d(everything, kept)
        weight = 0.0
        if len(left_out):
            weight += len(left_out) * np.log(settings.outlier_rate * settings.outlier_density)
        weight += len(kept) * (np.log1p(-settings.outlier_rate) - 0.5 * np.log(2 * np.pi))
        weight -= float(wider[kept].sum())
        return _suppose(
            parts, x[kept], residual[kept], kept, settings=settings, log_noise=log_noise, add=weight
        )

    hypotheses = [suppose(everything)]
    if settings.outlier_rate > 0 and len(x) >= _LEAST_ROWS:
        best = hypotheses[0]
        for _ in range(_MOST_ONE_BY_ONE):
            suspects = _proposals(best, parts, x, residual, settings, either_side)
            more = [suppose(kept) for kept in suspects]
            hypotheses += more
            better = max(more, key=lambda h: h.log_evidence, default=best)
            if better.log_evidence <= best.log_evidence:
                break
            best = better
    return _average(hypotheses, parts, settings, len(x))


def _suppose(
    parts: PriorParts,
    x: Floats,
    residual: Floats,
    kept: Indices,
    *,
    settings: PriorSettings,
    log_noise: tuple[float, float],
    add: float,
) -> _Hypothesis:
    """Evidence of every grid point for the rows `kept`, plus `add`."""
    n_samples = len(residual)
    lost = 0.0  # squared length of what compression removes: pure noise
    if n_samples > x.shape[1]:
        # More rows than features: an orthogonal change of rows keeps all that the weights see.
        q, x = np.linalg.qr(x)
        short = q.T @ residual
        lost = max(float(residual @ residual - short @ short), 0.0)
        residual = short
    n_lost = n_samples - len(residual)
    log_sds = np.log(settings.noise_grid)
    noise = np.exp(2 * log_sds)
    by_level = -0.5 * ((log_sds - log_noise[0]) / log_noise[1]) ** 2
    by_level = by_level - np.logaddexp.reduce(by_level) - n_lost * log_sds - 0.5 * lost / noise
    # Small matrices per grid point: everything (F, F) or (F, k) is made once.
    crossed = parts.each(lambda part: part @ x.T)
    rows = crossed.each(lambda part: x @ part)  # (k, k) each
    solved, evidence = [], []
    for point in grid_points(settings):
        values, vectors = linalg.eigh(rows.at(point))
        along = vectors.T @ residual
        totals = np.maximum(values, 0.0) + noise[:, None]
        solved.append(_Solved(point, vectors, along, totals))
        fit = (along**2 / totals).sum(axis=1) + np.log(totals).sum(axis=1)
        evidence.append(by_level - 0.5 * fit + add)
    given = n_lost == 0
    return _Hypothesis(kept, given, crossed, tuple(solved), np.array(evidence))


def _proposals(
    best: _Hypothesis,
    parts: PriorParts,
    x: Floats,
    residual: Floats,
    settings: PriorSettings,
    either_side: Bools,
) -> list[Indices]:
    """Rows to keep if one more of them (or, of many, all clear ones) were outliers."""
    if best.rows_given:
        deviation = best.leave_one_out()
    else:
        shift, _, noise = _mixture([best], [best.probability()], parts, settings)
        deviation = (residual[best.kept] - x[best.kept] @ shift) / np.sqrt(noise)
    deviation = np.where(either_side[best.kept], np.abs(deviation), deviation)
    if len(best.kept) > _FEW_ROWS:
        clear = deviation > _CLEAR_SD
        return [best.kept[~clear]] if clear.any() else []
    order = np.argsort(-deviation)[:_N_CANDIDATES]
    return [np.delete(best.kept, i) for i in order if deviation[i] > _SUSPECT_SD]


def _average(
    hypotheses: Sequence[_Hypothesis], parts: PriorParts, settings: PriorSettings, n_rows: int
) -> Posterior:
    top = max(float(h.log_joint.max()) for h in hypotheses)
    shares = [np.exp(h.log_joint - top) for h in hypotheses]
    whole = sum(float(share.sum()) for share in shares)
    evidence = top + float(np.log(whole))
    outlier = np.ones(n_rows)
    for hypothesis, share in zip(hypotheses, shares, strict=True):
        outlier[hypothesis.kept] -= share.sum() / whole
        share[share < _NEGLIGIBLE * whole] = 0.0
    whole = sum(float(share.sum()) for share in shares)
    shares = [share / whole for share in shares]
    shift, covariance, noise = _mixture(hypotheses, shares, parts, settings)
    return Posterior(shift, covariance, noise, outlier, evidence)


def _mixture(
    hypotheses: Sequence[_Hypothesis],
    shares: Sequence[Floats],
    parts: PriorParts,
    settings: PriorSettings,
) -> tuple[Floats, Floats, float]:
    """Mean (F,), covariance (F, F) and noise variance of the mixture of all grid points."""
    covariance = np.zeros_like(parts.scale)
    means, weights = [], []
    noise = 0.0
    for hypothesis, probability in zip(hypotheses, shares, strict=True):
        noise += float((probability @ np.square(settings.noise_grid)).sum())
        crossed = hypothesis.crossed
        for at, share in zip(hypothesis.solved, probability, strict=True):
            if not share.any():
                continue
            gain = crossed.at(at.point) @ at.vectors  # (F, k)
            removed = share @ (1.0 / at.totals)
            covariance += share.sum() * parts.at(at.point) - gain * removed @ gain.T
            levels = share > 0
            means.append((at.along / at.totals[levels]) @ gain.T)  # (n_levels, F)
            weights.append(share[levels])
    every, weight = np.concatenate(means), np.concatenate(weights)
    shift: Floats = weight @ every
    apart = (every - shift) * np.sqrt(weight)[:, None]
    covariance += apart.T @ apart
    return shift, covariance, noise
