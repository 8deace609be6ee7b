"""Which networks to measure first on a new device.

`d_optimal_references` picks, one after the other, the cell whose latency the prior knows least
about given those already picked (that maximises det of the information, greedily), then swaps
members while the determinant still grows.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.nasbench201 import NasBench201

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# HELP (Lee et al., NeurIPS 2021), hardware embedding of NAS-Bench-201; official indices.
PAPER_INDICES: Final = (11982, 431, 55, 9, 14451, 8636, 9881, 13479, 6196, 1462)


def d_optimal_references(
    prior: LatencyPrior,
    features: Floats,
    k: int,
    *,
    eligible: NDArray[np.bool_] | None = None,
    noise_rel: float | None = None,
    own: float = 1.0,
) -> Indices:
    """Greedy D-optimal design under the prior, in the order of picking.

    Any prefix is itself the greedy design of that length, so a shorter budget uses the first ones.

    Args:
        prior: what is known before measuring.
        features: of the n candidates, (n, F).
        k: how many to pick.
        eligible: which candidates may be picked, (n,); None = all. Pass live cells only.
        noise_rel: relative measurement noise; None = the prior's median.
        own: factor b on the device's own deviation.

    Shapes: -> (k,), indices into `features`. Raises: ConfigError when fewer than k are eligible.
    """
    x = prior.standardise(features)
    allowed = np.ones(len(x), bool) if eligible is None else np.asarray(eligible, dtype=bool)
    if not 0 <= k <= int(allowed.sum()):
        raise ConfigError(f"cannot pick {k} references from {int(allowed.sum())} candidates")
    noise = float(np.exp(prior.log_noise_mean)) if noise_rel is None else noise_rel
    # Relative noise: a row divided by its typical latency has noise of one size.
    rows = np.flatnonzero(allowed)
    x = x[rows] / prior.typical(x[rows])[:, None]
    root = np.linalg.cholesky(prior.covariance(own=own) + 1e-10 * np.eye(x.shape[1]))
    z = x @ root  # prior covariance of the rows is z z'
    variance = np.einsum("nf,nf->n", z, z)
    chosen: list[int] = []
    directions: list[Floats] = []
    for _ in range(k):
        variance_left = variance.copy()
        variance_left[chosen] = -np.inf
        best = int(variance_left.argmax())
        left = z[best] - sum((d * float(d @ z[best]) for d in directions), np.zeros(z.shape[1]))
        gain = z @ left
        del left
        chosen.append(best)
        # Rank-one downdate of the covariance by measuring `best`.
        unit = gain / np.sqrt(variance[best] + noise**2)
        variance = variance - unit**2
    return rows[np.array(chosen, dtype=np.int64)]
