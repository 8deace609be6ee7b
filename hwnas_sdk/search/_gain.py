"""Expected hypervolume gain of adding a point, over many joint draws of all points' values.

Everything lives in the unit box: 0 is ideal, 1 the reference point. `gains` is an average over
draws; with one draw it is the plain hypervolume gain.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_N_TARGETS = 2**15


class Gain(Protocol):
    """Hypervolume bookkeeping over S draws."""

    def gains(self, points: Floats) -> Floats:
        """Mean gain of adding each point alone, (b, S, m) -> (b,)."""
        ...

    def add(self, point: Floats) -> None:
        """Add one point to every draw, (S, m)."""
        ...


def gain_over(n_draws: int, low: Floats) -> Gain:
    """Exact for two objectives, by random targets for more; `low` (m,) bounds all points below."""
    return Staircases(n_draws) if len(low) == 2 else Targets(n_draws, low)


class Staircases:
    """Two objectives, exact: per draw, the area under the attained staircase.

    Between `starts[j]` and `ends[j]` on the first objective the best second objective so far is
    `heights[j]`.
    """

    def __init__(self, n_draws: int) -> None:
        """Start with the empty front: height 1 everywhere."""
        self._x = np.empty((n_draws, 0))
        self._y = np.empty((n_draws, 0))
        self._starts = np.full((n_draws, 1), -np.inf)
        self._ends = np.ones((n_draws, 1))
        self._heights = np.ones((n_draws, 1))

    def gains(self, points: Floats) -> Floats:
        """Mean gain of each point, (b, S, 2) -> (b,)."""
        x, y = points[:, :, 0, None], points[:, :, 1, None]
        widths = np.maximum(self._ends - np.maximum(self._starts, x), 0.0)
        depths = np.maximum(self._heights - y, 0.0)
        mean: Floats = np.einsum("bsj,bsj->b", widths, depths) / points.shape[1]
        return mean

    def add(self, point: Floats) -> None:
        """Add one point per draw, (S, 2)."""
        self._x = np.column_stack([self._x, point[:, 0]])
        self._y = np.column_stack([self._y, point[:, 1]])
        order = np.argsort(self._x, axis=1)
        # Beyond the reference a point starts a step of no width.
        x = np.minimum(np.take_along_axis(self._x, order, axis=1), 1.0)
        y = np.minimum(np.take_along_axis(self._y, order, axis=1), 1.0)
        n_draws = len(x)
        self._starts = np.column_stack([np.full(n_draws, -np.inf), x])
        self._ends = np.column_stack([x, np.ones(n_draws)])
        self._heights = np.column_stack([np.ones(n_draws), np.minimum.accumulate(y, axis=1)])


class Targets:
    """Any number of objectives, approximate: the share of random targets a point newly dominates.

    The targets are the same for every point, so two points are compared without noise between
    them. Draws and targets together number about `_N_TARGETS`.
    """

    def __init__(self, n_draws: int, low: Floats) -> None:
        """Place the targets between `low` and 1; none is dominated yet."""
        n_targets = max(64, _N_TARGETS // n_draws)
        rng = np.random.Generator(np.random.PCG64(0))
        edge = np.maximum(1.0 - low, 0.0)
        self._targets = 1.0 - edge * rng.random((n_targets, len(low)))
        self._volume = float(np.prod(edge))
        self._reached = np.zeros((n_draws, n_targets), dtype=np.bool_)

    def gains(self, points: Floats) -> Floats:
        """Mean gain of each point, (b, S, m) -> (b,)."""
        shares = [(self._dominated(p) & ~self._reached).mean() for p in points]
        return np.array(shares, dtype=np.float64) * self._volume

    def add(self, point: Floats) -> None:
        """Add one point per draw, (S, m)."""
        self._reached |= self._dominated(point)

    def _dominated(self, point: Floats) -> NDArray[np.bool_]:
        result = np.ones(self._reached.shape, dtype=np.bool_)
        for objective in range(point.shape[1]):
            result &= point[:, objective, None] <= self._targets[:, objective]
        return result
