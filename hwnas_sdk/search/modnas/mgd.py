"""Multiple gradient descent: the direction in which no device gets worse.

The weights minimise || sum_t gamma_t g_t ||^2 over the simplex; the resulting G satisfies
<g_t, G> >= ||G||^2 for all t, so a small step along -G lowers every loss, unless G = 0: then the
point is Pareto-stationary.
Source: Desideri (2012); Frank-Wolfe as in Sener & Koltun (2018); MODNAS, eq. 10 and algorithm 2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_ITERATIONS = 250
TOLERANCE = 1e-5


def two_vector_weight(v11: float, v12: float, v22: float) -> float:
    """Weight of the first of two vectors in their min-norm mixture, from inner products."""
    if v12 >= v11:
        return 1.0
    if v12 >= v22:
        return 0.0
    return (v22 - v12) / (v11 + v22 - 2.0 * v12)


def min_norm_weights(
    gram: NDArray[np.floating],
    *,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE,
) -> NDArray[np.float64]:
    """Simplex weights of the min-norm mixture of T vectors by Frank-Wolfe with exact line search.

    Shapes: gram (T, T) of inner products -> (T,).
    Raises: ValueError for a gram matrix that is not square or not finite.
    """
    products_of = np.asarray(gram, dtype=np.float64)
    n = len(products_of)
    if products_of.shape != (n, n) or n == 0 or not np.isfinite(products_of).all():
        raise ValueError(f"expected a finite square matrix, got shape {products_of.shape}")
    weights = _best_pair(products_of)
    along = products_of @ weights  # <g_t, G> of the current point G
    for _ in range(max_iterations):
        worst = int(along.argmin())
        kept = two_vector_weight(
            float(weights @ along), float(along[worst]), products_of[worst, worst]
        )
        step = 1.0 - kept
        weights *= kept
        weights[worst] += step
        along = kept * along + step * products_of[worst]
        if step < tolerance:
            break
    return weights


def _best_pair(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Best mixture of any two vectors (or of one), as a start."""
    n = len(gram)
    first, second = np.triu_indices(n)
    v11, v22, v12 = gram[first, first], gram[second, second], gram[first, second]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (v22 - v12) / (v11 + v22 - 2.0 * v12)
    share = np.where(v12 >= v22, 0.0, share)
    share = np.where(v12 >= v11, 1.0, share)
    value = share**2 * v11 + (1.0 - share) ** 2 * v22 + 2.0 * share * (1.0 - share) * v12
    best = int(value.argmin())
    weights = np.zeros(n)
    weights[first[best]] += share[best]
    weights[second[best]] += 1.0 - share[best]
    return weights


def common_direction(gradients: Tensor, *, unit_norm: bool = True) -> tuple[Tensor, Tensor]:
    """Mixture of the devices' gradients along which all losses fall.

    Args:
        gradients: (T, p), one row per device.
        unit_norm: scale each to length 1 first, so that devices with small gradients do not
            dominate (the released code; not in the paper). The direction is then scaled back by
            the mean length.

    Returns: direction (p,), weights (T,).
    """
    rows = gradients
    scale = 1.0
    if unit_norm:
        lengths = gradients.norm(dim=1, keepdim=True)
        rows = gradients / lengths.clamp_min(1e-12)
        scale = float(lengths.mean())
    gram = (rows @ rows.T).numpy()
    weights = torch.from_numpy(min_norm_weights(gram)).to(gradients.dtype)
    return scale * (weights @ rows), weights
