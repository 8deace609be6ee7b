"""Both sides of the search from predictions of a whole small space: minutes on a CPU.

Any predictor will do, since `objectives.multilinear` gives it a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.search.modnas.objectives import LARGEST_TABLE, multilinear

Floats = NDArray[np.float64]


def scaled_table(values: Floats, live: NDArray[np.bool_], sizes: tuple[int, ...]) -> Tensor:
    """Predictions of a whole space scaled to [0, 1] over its live architectures (eq. 12).

    Dead architectures get 1, the worst: they are the fastest of all and worth nothing, and
    the search must not end in them.

    Shapes: values (size,), live (size,), in the order of `numpy.unravel_index` -> `sizes`.
    Raises: ModelError for a space that is too large, or predictions that are not finite.
    """
    if len(values) > LARGEST_TABLE:
        raise ModelError(
            f"a space of {len(values)} architectures is too large to be predicted as a whole"
        )
    if not np.isfinite(values[live]).all():
        raise ModelError("the predictor has no finite value for some live architectures")
    low, high = float(values[live].min()), float(values[live].max())
    scaled = (values - low) / (high - low if high > low else 1.0)
    scaled = np.where(live, scaled, 1.0)
    return torch.from_numpy(scaled.astype(np.float32).reshape(sizes))


class PredictedResponse:
    """Best response of an accuracy predictor: the task loss is its scaled error, nothing learns.

    Args:
        error: scaled errors of the space, shape ``choices`` of the space.
    """

    def __init__(self, error: Tensor) -> None:
        """Keep the table."""
        self._error = error

    def task_loss(self, choices: Tensor, *, train: bool) -> Tensor:
        """Scaled error, (n, d, c) -> (n,)."""
        del train
        return multilinear(self._error, choices)

    def learn(self, choices: Tensor, weights: Tensor) -> None:
        """Nothing: a predictor is frozen."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class PredictedHardware:
    """Scaled hardware objectives of all search devices.

    Args:
        costs: shape (T, m - 1, *choices of the space).
    """

    def __init__(self, costs: Tensor) -> None:
        """Keep the tables."""
        self._costs = costs

    def __call__(self, choices: Tensor, devices: Sequence[int]) -> Tensor:
        """Choices (T, n, d, c) of T devices -> (T, n, m - 1)."""
        tables = self._costs[list(devices)]
        n_metrics = tables.shape[1]
        grouped = choices[:, None].expand(-1, n_metrics, -1, -1, -1).flatten(0, 1)
        values = multilinear(tables.flatten(0, 1), grouped)  # (T * (m - 1), n)
        return values.reshape(len(choices), n_metrics, -1).transpose(1, 2)
