"""Peak memory from what can be counted: parameters and the largest set of live activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk.core.errors import ModelError

BYTES_PER_MIB = 2**20
BYTES_PER_ELEMENT = 4  # float32


def analytic_mib(n_params: ArrayLike, peak_activation_elements: ArrayLike) -> NDArray[np.float64]:
    """Float32 parameters plus the largest set of live activations, (n,), (n,) -> (n,) MiB."""
    elements = np.asarray(n_params, dtype=np.float64) + np.asarray(peak_activation_elements)
    mib: NDArray[np.float64] = elements * BYTES_PER_ELEMENT / BYTES_PER_MIB
    return mib


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """measured MiB = offset + slope * analytic MiB; the offset is the runtime itself."""

    offset_mib: float
    slope: float
    residual_sd_mib: float
    n: int

    @classmethod
    def fit(cls, analytic: ArrayLike, measured_mib: ArrayLike) -> MemoryModel:
        """Least squares with a slope of at least 1: a net cannot need less than its own tensors.

        With one measurement, or measurements of equal analytic size, the slope is 1.
        Shapes: (n,), (n,). Unit: MiB. Raises: ModelError without a measurement.
        """
        x = np.asarray(analytic, dtype=np.float64)
        y = np.asarray(measured_mib, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1 or not np.isfinite(x).all():
            raise ModelError("memory model: analytic and measured sizes must run parallel")
        kept = np.isfinite(y)
        x, y = x[kept], y[kept]
        if not x.size:
            raise ModelError(
                "memory model: no measured peak memory",
                hint="measure a few networks on this device first",
            )
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 1.0
        slope = max(slope, 1.0)
        offset = float(y.mean() - slope * x.mean())
        free = max(x.size - 2, 1)
        sd = float(np.sqrt(((y - offset - slope * x) ** 2).sum() / free))
        return cls(offset, slope, sd, int(x.size))

    def predict(self, analytic: ArrayLike) -> NDArray[np.float64]:
        """Peak memory of networks, (n,) -> (n,). Unit: MiB."""
        mib: NDArray[np.float64] = self.offset_mib + self.slope * np.asarray(
            analytic, dtype=np.float64
        )
        return mib
