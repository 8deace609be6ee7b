"""When a network has been measured often enough."""

from __future__ import annotations

import statistics
from typing import Any

N_RESAMPLES = 2000
_picks = {}  # type: dict[int, Any]


def ci_rel(medians_ns: list[float]) -> float | None:
    """Half-width of the 95 % bootstrap interval of the median of `medians_ns`, relative to it.

    The same resampling (generator, seed, count) as the host's core/stats.py, so both see the same
    interval. None below two blocks. Which sorted positions a resample's median lies between
    depends on the number of blocks only, so it is drawn once per number.
    """
    import numpy as np

    n = len(medians_ns)
    if n < 2:
        return None
    if n not in _picks:
        generator = np.random.Generator(np.random.PCG64(0))
        drawn = generator.integers(0, n, size=(N_RESAMPLES, n))
        drawn.sort(axis=1)
        middle = (n - 1) // 2
        _picks[n] = (drawn[:, middle].copy(), drawn[:, n // 2].copy())
    values = np.sort(np.asarray(medians_ns, dtype=np.float64))
    low, high = _picks[n]
    resampled = (values[low] + values[high]) / 2.0
    ends = np.quantile(resampled, [0.025, 0.975])
    label = float(statistics.median(medians_ns))
    return float(ends[1] - ends[0]) / 2.0 / label


def stop_reason(
    settings: dict[str, Any], medians_ns: list[float], timed_ns: int
) -> tuple[str | None, float | None]:
    """Return why a network is finished ("precision", "time", "blocks"; None: go on), and `ci_rel`.

    A target of 0 asks for exactly `max_blocks` blocks.
    """
    n, timed_s = len(medians_ns), timed_ns / 1e9
    target = settings["ci_rel_target"]
    if n >= settings["max_blocks"]:
        return "blocks", ci_rel(medians_ns)
    if target <= 0 or n < settings["min_blocks"] or timed_s < settings["min_timed_s"]:
        return None, None
    width = ci_rel(medians_ns)
    if width is not None and width <= target:
        return "precision", width
    return ("time" if timed_s >= settings["max_timed_s"] else None), width
