"""Posterior of a new device's latency weights, averaged over a grid of hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]

_NEGLIGIBLE: Final = 1e-4  # posterior probability below which a grid point is dropped


class PriorCovariance(Protocol):
    """Prior covariance of the weights at a grid point."""

    def __call__(self, *, transfer: float, own: float) -> Floats:
        """(F, F)."""
        ...


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


def condition(
    prior_covariance: PriorCovariance,
    x: Floats,
    residual: Floats,
    *,
    settings: PriorSettings,
    log_noise: tuple[float, float],
) -> tuple[Floats, Floats, float]:
    """Posterior of the weights around the prior mean, averaged over the grid.

    Args:
        prior_covariance: of the weights, by (transfer=t, own=b), (F, F).
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
    log_prior = -0.5 * ((log_sds - log_noise[0]) / log_noise[1]) ** 2
    grid: list[tuple[float, float, float, Floats, Floats, Floats]] = []
    for transfer in settings.transfer_grid:
        for own in settings.own_grid:
            cx = prior_covariance(transfer=transfer, own=own) @ x.T  # (F, k)
            values, vectors = linalg.eigh(x @ cx)
            values = np.maximum(values, 0.0)
            along = vectors.T @ residual
            for log_sd, log_p in zip(log_sds, log_prior, strict=True):
                total = values + np.exp(2 * log_sd)
                evidence = -0.5 * float((along**2 / total).sum() + np.log(total).sum())
                evidence -= n_lost * log_sd + 0.5 * lost * np.exp(-2 * log_sd)
                grid.append((evidence + log_p, transfer, own, cx @ vectors, along / total, total))
    log_p_all = np.array([point[0] for point in grid])
    probability = np.exp(log_p_all - log_p_all.max())
    probability /= probability.sum()
    noise_variances = np.tile(np.exp(2 * log_sds), len(grid) // len(log_sds))
    kept = [i for i, p in enumerate(probability) if p > _NEGLIGIBLE]
    share = probability[kept] / probability[kept].sum()
    means = np.stack([grid[i][3] @ grid[i][4] for i in kept])
    shift = share @ means
    covariance = (means - shift).T * share @ (means - shift)
    for p, i in zip(share, kept, strict=True):
        _, transfer, own, gain, _, total = grid[i]
        covariance += p * (prior_covariance(transfer=transfer, own=own) - gain / total @ gain.T)
    return shift, covariance, float(share @ noise_variances[kept])
