"""Weights of known devices: standardised features and ridge regression on many rows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from hwnas_sdk.predictors.encodings import FEATURE_GROUPS

Floats = NDArray[np.float64]

# Groups that are scaled to unit variance; the others keep their natural units (counts, 0/1).
_STANDARDISED: Final = ("structure", "raw_products", "live_products")


def standardisation(x: Floats) -> tuple[Floats, Floats]:
    """Centre and factor per feature; features that do not vary get factor 0, the constant 1."""
    center = x.mean(axis=0)
    sd = x.std(axis=0)
    varies = sd > 1e-9
    scale = varies.astype(np.float64)
    for group in _STANDARDISED:
        part = FEATURE_GROUPS[group]
        scale[part] = np.where(varies[part], 1.0 / np.maximum(sd[part], 1e-9), 0.0)
    constant = FEATURE_GROUPS["constant"]
    center[constant], scale[constant] = 0.0, 1.0
    return center, scale


class Ridge:
    """Ridge regression of several targets on the same rows; the constant is free."""

    def __init__(self, x: Floats, ridge: float) -> None:
        penalty = np.full(x.shape[1], ridge)
        penalty[FEATURE_GROUPS["constant"]] = 1e-6
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += penalty
        self._x = x
        self._factor = linalg.cho_factor(gram, lower=True)

    def fit(self, y: Floats) -> Floats:
        """Weights, (n,) -> (F,)."""
        weights: Floats = linalg.cho_solve(self._factor, self._x.T @ y)
        return weights
