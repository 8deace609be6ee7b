"""Posterior of a new device's latency weights, averaged over a grid of hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]

_NEGLIGIBLE: Final = 1e-4  # posterior probability below which a grid point is dropped


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """Hyper-parameters, chosen on the training devices only.

    Attributes:
        scale_sd: a, uncertainty of the device's scale beyond the robust estimate.
        transfer_sd: alpha, weight of the known devices' covariance.
        group_sd: feature group -> sd of a device's own deviation per feature, share of the scale.
        noise_grid: relative noise levels; `transfer_grid`: values of t; `own_grid`: values of b.
        noise_log_sd: least width of the log-normal noise prior.
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
    noise_grid: tuple[float, ...] = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16)
    transfer_grid: tuple[float, ...] = (0.5, 1.0, 2.0)
    own_grid: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    noise_log_sd: float = 1.5
    ridge: float = 3.0


@dataclass(frozen=True, slots=True)
class PriorParts:
    """Prior covariance of the weights, scale + t^2 known + b^2 own, each part (F, F)."""

    scale: Floats
    known: Floats
    own: Floats

    def at(self, transfer: float, own: float) -> Floats:
        """The covariance at one grid point, (F, F)."""
        total: Floats = self.scale + transfer**2 * self.known + own**2 * self.own
        return total


@dataclass(frozen=True, slots=True)
class _Pair:
    """One (t, b) of the grid with all noise levels; eigenvectors of the rows' covariance."""

    transfer: float
    own: float
    vectors: Floats  # (k, k)
    along: Floats  # residual in their coordinates, (k,)
    totals: Floats  # eigenvalues plus noise, (n_noise, k)


def condition(
    parts: PriorParts,
    x: Floats,
    residual: Floats,
    *,
    settings: PriorSettings,
    log_noise: tuple[float, float],
) -> tuple[Floats, Floats, float]:
    """Posterior of the weights around the prior mean, averaged over the grid.

    Args:
        parts: prior covariance of the weights.
        x: rows whitened so that all have one noise level, (k, F), k >= 1.
        residual: what the prior mean leaves of their values, (k,).
        settings: the grid.
        log_noise: mean and sd of the prior of the log noise.

    Returns the shift of the mean (F,), the covariance (F, F) and the mean noise variance.
    """
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
    known_by_level = -0.5 * ((log_sds - log_noise[0]) / log_noise[1]) ** 2
    known_by_level -= n_lost * log_sds + 0.5 * lost / noise
    # Small matrices per grid point: everything (F, F) or (F, k) is made once.
    crossed = PriorParts(parts.scale @ x.T, parts.known @ x.T, parts.own @ x.T)  # (F, k) each
    rows = PriorParts(x @ crossed.scale, x @ crossed.known, x @ crossed.own)  # (k, k) each
    pairs, evidence = [], []
    for transfer in settings.transfer_grid:
        for own in settings.own_grid:
            values, vectors = linalg.eigh(rows.at(transfer, own))
            along = vectors.T @ residual
            totals = np.maximum(values, 0.0) + noise[:, None]
            pairs.append(_Pair(transfer, own, vectors, along, totals))
            fit = (along**2 / totals).sum(axis=1) + np.log(totals).sum(axis=1)
            evidence.append(known_by_level - 0.5 * fit)
    probability = np.exp(np.array(evidence) - np.max(evidence))  # (n_pairs, n_noise)
    probability[probability < _NEGLIGIBLE * probability.sum()] = 0.0
    probability /= probability.sum()
    shift, covariance = _mixture(pairs, probability, parts, crossed)
    return shift, covariance, float((probability @ noise).sum())


def _mixture(
    pairs: Sequence[_Pair], probability: Floats, parts: PriorParts, crossed: PriorParts
) -> tuple[Floats, Floats]:
    """Mean (F,) and covariance (F, F) of the mixture of all grid points."""
    covariance = np.zeros_like(parts.scale)
    means, shares = [], []
    for pair, share in zip(pairs, probability, strict=True):
        if not share.any():
            continue
        gain = crossed.at(pair.transfer, pair.own) @ pair.vectors  # (F, k)
        removed = share @ (1.0 / pair.totals)
        covariance += share.sum() * parts.at(pair.transfer, pair.own) - gain * removed @ gain.T
        levels = share > 0
        means.append((pair.along / pair.totals[levels]) @ gain.T)  # (n_levels, F)
        shares.append(share[levels])
    every, weight = np.concatenate(means), np.concatenate(shares)
    shift: Floats = weight @ every
    apart = (every - shift) * np.sqrt(weight)[:, None]
    covariance += apart.T @ apart
    return shift, covariance
