"""Energy of boards without Python: the battery's gauge, sampled by the job's script.

One more invocation per network, long enough for a slow gauge, with an idle window before and after
it. The script notes "uptime current voltage" a few times a second, in idle windows as well, so the
cost of sampling is in both. Coarse: the whole device, display and radios included; refused while
anything charges. Source: measurement specification, 2.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

IDLE_S: Final = 10
ACTIVE_S: Final = 100.0
"""A gauge updates about once a second, and 100 fresh readings are wanted."""
MIN_RUNS: Final = 200
LIMIT_S: Final = 400.0
MIN_CHANGES: Final = 10
N_WINDOWS: Final = 5
MAX_GAP_S: Final = 5.0
IDLE_TOL_REL: Final = 0.03
PLAUSIBLE_UA: Final = 10_000.0
"""The kernel says microampere; a smaller current than this is in another unit."""
SCOPE: Final = "whole device, display and radios included"

Powers = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Times in s on the board's clock, powers in mW."""


def energy_runs(latency_s: float) -> int:
    """Timed runs of the energy invocation."""
    wanted = max(ACTIVE_S / latency_s, MIN_RUNS)
    return max(math.ceil(min(wanted, LIMIT_S / latency_s)), 1)


def read_powers(text: str) -> Powers | str:
    """Understand what the script noted; a text is the reason why there is nothing to be had."""
    rows: list[tuple[float, float, float]] = []
    for line in text.splitlines():
        words = line.split()
        try:
            up_s, current_ua, voltage_uv = (float(word) for word in words)
        except ValueError:
            return "parse_failed"
        rows.append((up_s, abs(current_ua), voltage_uv))
    if len(rows) < 2:
        return "no_sensor"
    table = np.array(rows)
    if float(np.median(table[:, 1])) < PLAUSIBLE_UA:
        return "sensor_failed"
    return table[:, 0], table[:, 1] * table[:, 2] / 1e9


def energy_of(
    before: str, during: str, after: str, *, end_s: float, timed_s: float, runs: int
) -> dict[str, Any]:
    """Return the "energy" facts of a network, by the names the agent uses.

    Args:
        before: samples of the idle window before.
        during: samples taken while the runner ran.
        after: samples of the idle window after.
        end_s: when the timed runs ended, on the board's clock.
        timed_s: how long they took.
        runs: how many they were.
    """
    windows: list[Powers] = []
    for text in (before, during, after):
        found = read_powers(text)
        if isinstance(found, str):
            return {"reason": found, "sensor": "battery"}
        windows.append(found)
    times_s, powers_mw = windows[1]
    inside = (times_s >= end_s - timed_s) & (times_s <= end_s)
    idle = [powers for _, powers in (windows[0], windows[2])]
    facts: dict[str, Any] = {"sensor": "battery", "scope": SCOPE, "n": runs, "n_windows": N_WINDOWS}
    if int(inside.sum()) < 2 * N_WINDOWS:
        return {**facts, "reason": "sensor_gap"}
    active = _means(times_s[inside], powers_mw[inside])
    if float(np.diff(times_s[inside]).max()) > MAX_GAP_S:
        return {**facts, "reason": "sensor_gap"}
    idle_mw = [float(powers.mean()) for powers in idle]
    idle_se_mw = [_se(powers) for powers in idle]
    latency_s = timed_s / runs
    active_mw = float(active.mean())
    mean_idle_mw = sum(idle_mw) / 2.0
    facts |= {
        "gross_mj": active_mw * latency_s,
        "net_mj": (active_mw - mean_idle_mw) * latency_s,
        "gross_se_mj": _se(active) * latency_s,
        "net_se_mj": math.hypot(_se(active), math.hypot(*idle_se_mw) / 2.0) * latency_s,
        "idle_before_mw": idle_mw[0],
        "idle_after_mw": idle_mw[1],
        "active_mw": active_mw,
        "window_s": timed_s,
        "loop_ms": 1e3 * latency_s,
        "reason": None,
    }
    changes = sum(int(np.count_nonzero(np.diff(powers))) for _, powers in windows)
    sigma_mw = max(float(powers.std(ddof=1)) for powers in idle)
    drift_mw = abs(idle_mw[0] - idle_mw[1])
    if changes < MIN_CHANGES:
        facts |= {"gross_mj": None, "net_mj": None, "reason": "sensor_stuck"}
    elif active_mw - mean_idle_mw < 3.0 * sigma_mw:
        facts |= {"gross_mj": None, "net_mj": None, "reason": "below_sensor_floor"}
    elif drift_mw > max(IDLE_TOL_REL * mean_idle_mw, 3.0 * math.hypot(*idle_se_mw)):
        facts |= {"net_mj": None, "reason": "idle_drift"}
    return facts


def _means(times_s: NDArray[np.float64], powers_mw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power of each of `N_WINDOWS` equal parts, by the trapezoid rule."""
    parts: Sequence[NDArray[np.intp]] = np.array_split(np.arange(times_s.size), N_WINDOWS)
    means = [
        np.trapezoid(powers_mw[part], times_s[part]) / (times_s[part][-1] - times_s[part][0])
        for part in parts
    ]
    return np.array(means, dtype=np.float64)


def _se(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else 0.0
