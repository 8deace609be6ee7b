"""Whether a device's first measurements look like those of the devices the prior has seen."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.bayes import LatencyPrior

Floats = NDArray[np.float64]

_N_DRAWS: Final = 2000
_SEEN_TRANSFER: Final = 1.0  # devices the prior has seen: t and b up to here
_SEEN_OWN: Final = 0.3
_NOISE_LOG_SD: Final = 0.3
_LEAST_SHARE: Final = 0.05  # of a device's own typical latency
_MOST_ROWS: Final = 60  # more measurements speak for themselves


def surprise(prior: LatencyPrior, features: Floats, latency_ms: Floats, *, seed: int = 0) -> float:
    """Probability that a device like the known ones has measurements at least this unlikely.

    Devices are drawn from the prior predictive (the known devices' covariance and noise, without
    the large own deviations the prior also allows for), each is brought to its own scale as
    measured ones are, and the share whose marginal likelihood is no larger is returned. 1 for
    fewer than 3 measurements, which say nothing.

    Shapes: features (k, F), latency_ms (k,), positive. The first 60 rows are used.
    """
    x = prior.standardise(features[:_MOST_ROWS])
    y = np.asarray(latency_ms, dtype=np.float64)[:_MOST_ROWS]
    if len(y) < 3:
        return 1.0
    settings, parts = prior.settings, prior.covariance_parts
    typical = prior.typical(x)
    rows = x / typical[:, None]
    blocks = [rows @ part @ rows.T for part in (parts.scale, parts.known, parts.own)]
    noises = np.asarray(settings.noise_grid)
    # Noise as of one of the known devices: with the prior's own wide tail nothing is surprising.
    apart = (np.log(noises)[:, None] - prior.log_noises) / _NOISE_LOG_SD
    by_noise = np.logaddexp.reduce(-0.5 * apart**2, axis=1)
    by_noise -= np.logaddexp.reduce(by_noise)
    values, vectors = [], []
    for t in settings.transfer_grid:
        for b in settings.own_grid:
            if t <= _SEEN_TRANSFER and b <= _SEEN_OWN:
                eigen, basis = linalg.eigh(blocks[0] + t**2 * blocks[1] + b**2 * blocks[2])
                values.append(np.maximum(eigen, 0.0)[None] + (noises**2)[:, None])
                vectors.append(basis)
    totals = np.stack(values)  # (pairs, noises, k)
    rng = child_rng(seed, "surprise")
    pair = rng.integers(len(vectors), size=_N_DRAWS)
    level = rng.choice(len(noises), size=_N_DRAWS, p=np.exp(by_noise))
    along = rng.standard_normal((_N_DRAWS, len(y))) * np.sqrt(totals[pair, level])
    drawn = 1.0 + np.einsum("nij,nj->ni", np.stack(vectors)[pair], along)
    drawn = drawn[(drawn > _LEAST_SHARE).all(axis=1)]  # a linear model may draw what cannot be
    shares = np.vstack([y / typical / np.exp(np.median(np.log(y / typical))), drawn])
    shares /= np.exp(np.median(np.log(shares), axis=1, keepdims=True))  # to the own scale
    residual = shares - rows @ prior.mean
    likelihood = np.full(len(shares), -np.inf)
    for basis, total in zip(vectors, totals, strict=True):
        squares = (residual @ basis) ** 2  # (n, k)
        fit = squares @ (1.0 / total).T + np.log(total).sum(axis=1)  # (n, noises)
        each = np.logaddexp.reduce(by_noise - 0.5 * fit, axis=1)
        likelihood = np.logaddexp(likelihood, each)
    return float((1 + (likelihood[1:] <= likelihood[0]).sum()) / len(likelihood))
