"""Preference vectors: how much each of m objectives counts. Rows sum to one unless said otherwise.

Source: MODNAS (Sukthanker et al., 2024) and its released code.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Preferences = NDArray[np.float64]
"""(n, m), non-negative."""

N_PREFERENCES = 24

_MARGIN = 1e-6  # radians


def equidistant(n_objectives: int = 2, n: int = N_PREFERENCES) -> Preferences:
    """Evenly spread preferences on the simplex, the corners included.

    Two objectives: exactly `n`, r_j = (1 - j / (n - 1), j / (n - 1)). More: the largest Das-Dennis
    lattice of at most `n` points, which are 21 of 24 for three objectives.

    Shapes: (k, n_objectives), k <= n.
    Raises: ValueError for fewer than two objectives, or an `n` below the number of objectives.
    """
    if n_objectives < 2 or n < n_objectives:
        raise ValueError(f"no {n} preferences reach the corners of {n_objectives} objectives")
    if n_objectives == 2:
        return das_dennis(2, n - 1)
    divisions = 1
    while comb(divisions + n_objectives, n_objectives - 1) <= n:
        divisions += 1
    return das_dennis(n_objectives, divisions)


def circle(n: int = N_PREFERENCES) -> Preferences:
    """The released code's preferences of two objectives: on the unit circle, not the simplex.

    r_j = (cos theta_j, sin theta_j), theta_j equally spaced in [1e-6, pi/2 - 1e-6]. Rows have
    length one and sum to up to 1.41: for comparison with that code only. Shapes: (n, 2).
    Raises: ValueError for fewer than two.
    """
    if n < 2:
        raise ValueError(f"a circle needs at least 2 preferences, got {n}")
    theta = np.linspace(_MARGIN, np.pi / 2 - _MARGIN, n)
    return np.column_stack([np.cos(theta), np.sin(theta)])


def das_dennis(n_objectives: int, divisions: int) -> Preferences:
    """All points of the simplex whose coordinates are multiples of 1 / divisions.

    Shapes: (C(divisions + m - 1, m - 1), m), the first coordinate falling from 1 to 0.
    Raises: ValueError unless both are at least 1. Source: Das & Dennis 1998.
    """
    if n_objectives < 1 or divisions < 1:
        raise ValueError(f"no lattice of {divisions} divisions for {n_objectives} objectives")
    # A point is a row of `divisions` stars parted by m - 1 bars.
    n_places = divisions + n_objectives - 1
    bars = np.array(list(combinations(range(n_places), n_objectives - 1)), dtype=np.int64)
    ends = np.full((len(bars), 1), -1), np.full((len(bars), 1), n_places)
    stars = np.diff(np.hstack([ends[0], bars, ends[1]]), axis=1) - 1
    return stars[::-1] / divisions


def dirichlet(
    n: int, n_objectives: int, rng: np.random.Generator, *, concentration: float = 1.0
) -> Preferences:
    """Random preferences; a `concentration` of 1 is uniform on the simplex.

    Shapes: (n, n_objectives). Raises: ValueError unless `concentration` is positive.
    """
    if not concentration > 0.0:
        raise ValueError(f"the concentration must be positive, got {concentration}")
    drawn: Preferences = rng.dirichlet(np.full(n_objectives, concentration), size=n)
    return drawn
