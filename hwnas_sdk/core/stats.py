"""Robust statistics of repeated timings; pure numpy.

Samples are whatever unit the caller uses; every result has the same unit or is a ratio.
Source: docs/measuring.md ("The label", "Outliers").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Samples = NDArray[np.integer[Any]] | Floats

OUTLIER_MADS = 10.0
"""Distance from the median, in scaled median absolute deviations, beyond which a sample counts.

Iglewicz and Hoaglin 1993, the threshold hyperfine uses."""

MAD_TO_SD = 1.4826
"""Scales a median absolute deviation to the standard deviation of a normal distribution."""


def block_medians(blocks: Sequence[Samples]) -> Floats:
    """Median of each block.

    Shapes: blocks: n arrays (any length >= 1); returns (n,).
    """
    return np.array([np.median(block) for block in blocks], dtype=np.float64)


def median_ci(
    medians: Samples, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the median of block medians.

    Blocks, not single inferences, are resampled: inferences within a block share the machine's
    state and are far from independent. The generator is seeded, so equal input gives equal output.

    Shapes: medians (n,). Returns (low, high), or None below two blocks, where nothing is known.
    Source: Efron 1979.
    """
    values = np.sort(np.asarray(medians, dtype=np.float64))
    if values.size < 2:
        return None
    below, above = _middle_picks(values.size, n_resamples, seed)
    resampled = (values[below] + values[above]) / 2.0
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return float(low), float(high)


@lru_cache(maxsize=64)
def _middle_picks(n: int, n_resamples: int, seed: int) -> tuple[Indices, Indices]:
    """Positions, in n sorted values, of the one or two middle values of each resample.

    They depend on the number of values only, so they are drawn once per number.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    picks = generator.integers(0, n, size=(n_resamples, n))
    picks.sort(axis=1)
    return picks[:, (n - 1) // 2].copy(), picks[:, n // 2].copy()


def ci_half_width(medians: Samples, *, level: float = 0.95, seed: int = 0) -> float | None:
    """Half the width of `median_ci`, or None where there is no interval."""
    interval = median_ci(medians, level=level, seed=seed)
    return None if interval is None else (interval[1] - interval[0]) / 2.0


def mad(samples: Samples) -> float:
    """Median absolute deviation from the median, unscaled. Shapes: samples (n,), n >= 1."""
    values = np.asarray(samples, dtype=np.float64)
    return float(np.median(np.abs(values - np.median(values))))


def outlier_fraction(samples: Samples, *, floor_rel: float = 1e-3) -> float:
    """Share of the samples further than `OUTLIER_MADS` scaled deviations from the median.

    The deviation is at least `floor_rel` of the median: with a coarse clock most samples are
    equal, the deviation is zero, and every other sample would count.

    Shapes: samples (n,); 0.0 when empty. Outliers are counted, never removed.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        return 0.0
    centre = float(np.median(values))
    spread = MAD_TO_SD * max(mad(values), floor_rel * abs(centre))
    return float(np.mean(np.abs(values - centre) > OUTLIER_MADS * spread))


def is_bimodal(medians: Samples, *, gap_rel: float = 0.05) -> bool:
    """Whether block medians form two groups more than `gap_rel` apart.

    The sorted medians are cut at their largest gap; each side needs two blocks (one block alone
    is a disturbance, not a mode), and the gap must be wider than either side.

    Shapes: medians (n,).
    """
    values = np.sort(np.asarray(medians, dtype=np.float64))
    if values.size < 4:
        return False
    cut = int(np.argmax(np.diff(values))) + 1
    low, high = values[:cut], values[cut:]
    if min(low.size, high.size) < 2 or low[-1] <= 0.0:
        return False
    gap = float(high[0] - low[-1])
    return gap > gap_rel * float(low[-1]) and gap > max(float(np.ptp(low)), float(np.ptp(high)))


def cv(values: Samples) -> float:
    """Coefficient of variation: sample standard deviation / mean; 0.0 below two values."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size < 2:
        return 0.0
    return float(np.std(numbers, ddof=1) / np.mean(numbers))
