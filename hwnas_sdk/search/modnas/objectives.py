"""What the search minimises: predicted objectives, normalised and joined by a preference.

Sources: MODNAS eq. 11 (scalarisation with cosine penalty), eq. 12 (normalisation).
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

Scalarisation = Literal["linear", "chebyshev"]
SCALARISATIONS: Final[tuple[str, ...]] = get_args(Scalarisation)

LARGEST_TABLE: Final = 200_000
"""Spaces up to this size are predicted once, as a whole."""


def multilinear(table: Tensor, choices: Tensor) -> Tensor:
    """Expectation of a function of independent decisions; exact, and so is its gradient.

    At one-hot decisions it is the function itself, and its derivative with respect to a choice is
    the value the function has after that one change (up to a constant per decision, which no
    estimator sees): any predictor becomes differentiable, trees and Gaussian processes too.

    Shapes: table (c_1, ..., c_d) or (g, c_1, ..., c_d) for g functions; choices (n, d, c) with
    c >= every c_i, or (g, n, d, c) -> (n,) or (g, n).
    """
    grouped = choices.dim() == 4
    weights = choices if grouped else choices[None]
    values = (table if grouped else table[None]).to(weights.dtype)
    groups, n, d, _ = weights.shape
    sizes = values.shape[1:]
    if len(sizes) != d:
        raise ValueError(f"a table of {len(sizes)} decisions does not fit choices of {d}")
    # One decision after the other: (g, n, c_1) x (g, c_1, rest), then batched over n as well.
    rest = torch.bmm(weights[:, :, 0, : sizes[0]], values.reshape(groups, sizes[0], -1))
    for i in range(1, d):
        rest = rest.reshape(groups, n, sizes[i], -1)
        rest = (weights[:, :, i, : sizes[i], None] * rest).sum(dim=2)
    answer = rest.reshape(groups, n)
    return answer if grouped else answer[0]


class RunningRange:
    """Scales a stream of losses to [0, 1] by quantiles of its last values (eq. 12, robust).

    The paper takes the extrema since the start of the epoch; one outlier then squeezes all others.
    Until two different values are known, losses pass unscaled.
    """

    def __init__(self, window: int = 500, low: float = 0.01, high: float = 0.99) -> None:
        """Start empty."""
        self._values: deque[float] = deque(maxlen=window)
        self._low, self._high = low, high

    def scale(self, losses: Tensor) -> Tensor:
        """Take the values in, then scale them; keeps the gradient."""
        self._values.extend(losses.detach().flatten().tolist())
        low, high = np.quantile(np.array(self._values), [self._low, self._high])
        if not high > low:
            return losses
        return (losses - float(low)) / float(high - low)

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return list(self._values)

    def restore(self, values: list[float]) -> None:
        """Inverse of `state`."""
        self._values.clear()
        self._values.extend(values)


def scalarise(
    losses: Tensor,
    preferences: Tensor,
    *,
    scalarisation: Scalarisation = "linear",
    cosine: float = 0.0,
    bounds: Tensor | None = None,
) -> Tensor:
    """One loss per row from normalised objectives.

    Args:
        losses: (n, m), all in about [0, 1], the task loss first.
        preferences: (n, m) on the simplex.
        scalarisation: "linear" is r^T L; "chebyshev" is max_i r_i L_i + .05 sum L, which also
            reaches the parts of a front that are not convex.
        cosine: weight of the penalty -cos(L, r); with a gradient, unlike in the released code,
            where the vector was detached and the penalty did nothing.
        bounds: (n, m - 1) or (m - 1,), user prior: a hardware objective that is within its bound
            is not minimised any further.

    Returns: (n,).
    """
    weights = preferences
    if bounds is not None:
        within = losses[:, 1:].detach() <= bounds
        weights = torch.cat([weights[:, :1], weights[:, 1:] * ~within], dim=1)
    if scalarisation == "linear":
        value = (weights * losses).sum(dim=1)
    else:
        value = (weights * losses).max(dim=1).values + 0.05 * (losses * (weights > 0.0)).sum(dim=1)
    if cosine:
        value = value - cosine * torch.cosine_similarity(losses, preferences, dim=1)
    return value
