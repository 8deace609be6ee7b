"""Energy per inference from a counter: idle window, loop, idle window.

Source: measurement specification, 2.9. Energies in millijoules, powers in milliwatts.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

IDLE_S = 10.0
ACTIVE_S = 10.0
ACTIVE_MAX_S = 40.0
"""A loop of 200 slow inferences would take minutes; it ends here and says how many it had."""
MIN_RUNS = 200
STEP_S = 0.5
MIN_WINDOWS = 5
IDLE_TOL_REL = 0.03
LOOP_TOL_REL = 0.05


class Idle:
    """Power while nothing runs. Attributes: mean_mw, sd_mw, se_mw, window_s."""

    def __init__(self, powers_mw: list[float], window_s: float) -> None:
        self.mean_mw = statistics.mean(powers_mw)
        self.sd_mw = statistics.stdev(powers_mw) if len(powers_mw) > 1 else 0.0
        self.se_mw = self.sd_mw / len(powers_mw) ** 0.5
        self.window_s = window_s


def idle_power(
    read_uj: Callable[[], int], check: Callable[[], None], duration_s: float = IDLE_S
) -> Idle:
    """Sleep for `duration_s` and return the power meanwhile, from windows of `STEP_S`."""
    powers_mw = []
    begin_ns = time.monotonic_ns()
    last_ns, last_uj = begin_ns, read_uj()
    step_s = min(STEP_S, duration_s / MIN_WINDOWS)
    while last_ns - begin_ns < duration_s * 1e9:
        check()
        time.sleep(step_s)
        now_ns, now_uj = time.monotonic_ns(), read_uj()
        powers_mw.append((now_uj - last_uj) * 1e6 / (now_ns - last_ns))
        last_ns, last_uj = now_ns, now_uj
    return Idle(powers_mw, (last_ns - begin_ns) / 1e9)


def active_windows(
    run: Callable[[], object],
    read_uj: Callable[[], int],
    check: Callable[[], None],
    duration_s: float = ACTIVE_S,
) -> list[tuple[int, int, int]]:
    """Run without a pause; returns (inferences, microjoules, ns) of each window."""
    windows = []
    clock = time.perf_counter_ns
    step_ns = int(min(STEP_S, duration_s / MIN_WINDOWS) * 1e9)
    begin_ns = clock()
    total = 0
    while True:
        check()
        start_uj, start_ns, n = read_uj(), clock(), 0
        while True:
            run()
            n += 1
            now_ns = clock()
            if now_ns - start_ns >= step_ns:
                break
        windows.append((n, read_uj() - start_uj, clock() - start_ns))
        total += n
        elapsed_s = (clock() - begin_ns) / 1e9
        long_enough = elapsed_s >= duration_s and total >= MIN_RUNS
        if len(windows) >= MIN_WINDOWS and (long_enough or elapsed_s >= 4.0 * duration_s):
            return windows


def summarise(
    windows: list[tuple[int, int, int]], before: Idle, after: Idle, label_ns: float
) -> dict[str, Any]:
    """Return the "energy" part of a "finished" event.

    `gross_mj` is what the sensor's scope used per inference, `net_mj` that without the idle power.
    A value that cannot be trusted is None and `reason` says why; the raw figures stay.
    """
    n = sum(window[0] for window in windows)
    used_uj = sum(window[1] for window in windows)
    length_ns = sum(window[2] for window in windows)
    idle_mw = (before.mean_mw + after.mean_mw) / 2.0
    idle_se_mw = (before.se_mw**2 + after.se_mw**2) ** 0.5 / 2.0
    active_mw = used_uj * 1e6 / length_ns
    per_run = [window[1] / window[0] / 1e3 for window in windows]
    gross_se_mj = statistics.stdev(per_run) / len(per_run) ** 0.5
    loop_ns = length_ns / n
    gross_mj = used_uj / n / 1e3
    net_se_mj = (gross_se_mj**2 + (idle_se_mw * loop_ns / 1e9) ** 2) ** 0.5
    drift_mw = abs(before.mean_mw - after.mean_mw)
    result = {
        "gross_mj": gross_mj,
        "net_mj": gross_mj - idle_mw * loop_ns / 1e9,
        "gross_se_mj": gross_se_mj,
        "net_se_mj": net_se_mj,
        "idle_before_mw": before.mean_mw,
        "idle_after_mw": after.mean_mw,
        "active_mw": active_mw,
        "window_s": length_ns / 1e9,
        "idle_window_s": before.window_s + after.window_s,
        "n": n,
        "n_windows": len(windows),
        "loop_ms": loop_ns / 1e6,
        "loop_differs": abs(loop_ns / label_ns - 1.0) > LOOP_TOL_REL,
        "reason": None,
    }  # type: dict[str, Any]
    if used_uj <= 0:
        result.update(gross_mj=None, net_mj=None, reason="sensor_stuck")
    elif active_mw - idle_mw < 3.0 * max(before.sd_mw, after.sd_mw):
        result.update(gross_mj=None, net_mj=None, reason="below_sensor_floor")
    elif drift_mw > max(IDLE_TOL_REL * idle_mw, 6.0 * idle_se_mw):
        # 6 x the standard error of the mean of both = 3 x that of their difference.
        result.update(net_mj=None, reason="idle_drift")
    return result
