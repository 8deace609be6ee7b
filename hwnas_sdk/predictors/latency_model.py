"""What is known of one device's latency (or energy): the posterior of `bayes.LatencyPrior`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.predictors.prediction import Prediction

if TYPE_CHECKING:
    from hwnas_sdk.predictors.bayes import LatencyPrior

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LatencyModel:
    """One device's latency model; `scale_ms` turns shares into milliseconds."""

    prior: LatencyPrior
    weights: Floats  # (F,)
    covariance: Floats  # (F, F)
    noise_variance: float  # of the relative noise; with a resolution, of the error over the scale
    scale_ms: float
    n_samples: int
    outlier_probability: Floats  # of each measurement, (n_samples,)
    resolution: float = 0.0  # share of the scale below which differences mean nothing
    least: float = 0.0  # share of the scale that no live network is expected to stay below

    @property
    def noise_rel(self) -> float:
        """Estimated relative noise of one measurement (root mean square over the grid).

        Of an exact device (`resolution` above 0): what its sums leave, as a share of the scale.
        """
        return float(np.sqrt(self.noise_variance))

    def predict(self, features: Floats) -> Prediction:
        """Mean and sd of a measured latency, noise included.

        Shapes: features (n, F) -> two (n,). Unit: that of the measurements (ms).
        """
        x = self.prior.standardise(features)
        mean = x @ self.weights
        if self.resolution > 0:  # its noise is no share of a value: what rounding took, mostly
            mean = np.round(mean / self.resolution) * self.resolution
            sd = np.full(len(mean), self.noise_rel)
            return Prediction(mean * self.scale_ms, sd * self.scale_ms)
        variance = np.einsum("nf,nf->n", x @ self.covariance, x)
        typical = self.prior.typical(x)
        variance = np.maximum(variance, 0.0) + self.noise_variance * typical**2
        mean = _possible(mean, self.least)
        return Prediction(mean * self.scale_ms, np.sqrt(variance) * self.scale_ms)


def _possible(mean: Floats, least: float) -> Floats:
    """Values of a linear model that are positive, (n,) -> (n,), in the same order.

    Above `least` nothing changes; below, values approach half of it. A network that takes no time
    or less would lie on every front.
    """
    if least <= 0:
        return mean
    low = np.minimum(mean, least) / least
    return np.where(mean < least, 0.5 * least * (1.0 + np.exp(2.0 * (low - 1.0))), mean)
