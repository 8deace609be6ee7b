"""Energy per inference from a meter: idle window, loop, idle window.

Energies in millijoules, powers in milliwatts. The meter (`power.meter`) is a function that returns
microjoules; what it had seen before and after each window comes with the idle windows, so that
`summarise` can tell whether the sensor was fit for it.
Source: measurement specification, 2.9; HW-NAS-Bench, EdgeGPU_Benchmark.py, for its estimator.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

IDLE_S = 10.0
ACTIVE_S = 10.0
MIN_RUNS = 200
MIN_UPDATES = 100
"""Fresh readings of the sensor during the loop."""
MIN_CHANGES = 10
"""A sensor that says fewer different things than this, over all windows, does not work."""
LIMIT = 4.0
"""A loop of 200 slow inferences would take minutes; it ends after so many times its duration."""
STEP_S = 0.5
MIN_WINDOWS = 5
IDLE_TOL_REL = 0.03
LOOP_TOL_REL = 0.05


class Idle:
    """Power while nothing runs. Attributes: mean_mw, sd_mw, se_mw, window_s, meter, begin, end.

    `begin` and `end` are the meter's marks around the window, None for a bare function.
    """

    def __init__(
        self, powers_mw: list[float], window_s: float, meter: Any = None, marks: Any = (None, None)
    ) -> None:
        self.mean_mw = statistics.mean(powers_mw)
        self.sd_mw = statistics.stdev(powers_mw) if len(powers_mw) > 1 else 0.0
        self.se_mw = self.sd_mw / len(powers_mw) ** 0.5
        self.window_s = window_s
        self.meter = meter
        self.begin, self.end = marks


def idle_power(
    read_uj: Callable[[], int], check: Callable[[], None], duration_s: float | None = None
) -> Idle:
    """Sleep for `duration_s` (None: `IDLE_S`) and return the power meanwhile, window by window.

    The first one of a meter also finds out what polling the sensor costs.
    """
    duration_s = IDLE_S if duration_s is None else duration_s
    if hasattr(read_uj, "measure_overhead"):
        read_uj.measure_overhead()
    time.sleep(getattr(read_uj, "settle_s", 0.0))
    powers_mw = []  # type: list[float]
    begin = _marks(read_uj)
    begin_ns = time.monotonic_ns()
    last_ns, last_uj = begin_ns, read_uj()
    step_s = _step_s(read_uj, duration_s)
    while last_ns - begin_ns < duration_s * 1e9 or len(powers_mw) < MIN_WINDOWS:
        check()
        time.sleep(step_s)
        now_ns, now_uj = time.monotonic_ns(), read_uj()
        powers_mw.append((now_uj - last_uj) * 1e6 / (now_ns - last_ns))
        last_ns, last_uj = now_ns, now_uj
        if getattr(read_uj, "fault", None):
            break
    return Idle(powers_mw, (last_ns - begin_ns) / 1e9, read_uj, (begin, _marks(read_uj)))


def active_windows(
    run: Callable[[], object],
    read_uj: Callable[[], int],
    check: Callable[[], None],
    duration_s: float | None = None,
) -> list[tuple[int, int, int]]:
    """Run without a pause; returns (inferences, microjoules, ns) of each window.

    The sensor gets the time it needs to forget the idle power before the first one.
    """
    duration_s = ACTIVE_S if duration_s is None else duration_s
    clock = time.perf_counter_ns
    step_ns = int(_step_s(read_uj, duration_s) * 1e9)
    period_s = getattr(read_uj, "period_s", 0.0)
    needed_s = max(duration_s, MIN_UPDATES * period_s)
    limit_s = max(LIMIT * duration_s, 1.5 * needed_s)
    settled_ns = clock() + int(getattr(read_uj, "settle_s", 0.0) * 1e9)
    while clock() < settled_ns:
        run()
    windows = []
    begin_ns = clock()
    begin = _marks(read_uj)
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
        seen = _marks(read_uj)
        fresh = MIN_UPDATES if seen is None else seen.updates - begin.updates
        long_enough = elapsed_s >= duration_s and total >= MIN_RUNS and fresh >= MIN_UPDATES
        over = elapsed_s >= limit_s or getattr(read_uj, "fault", None)
        if len(windows) >= MIN_WINDOWS and (long_enough or over):
            if seen is not None:
                read_uj.loop = (begin, seen)  # type: ignore[attr-defined]
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
    seen = _seen(before, after)
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
        # Mean rail power x mean time, as HW-NAS-Bench published it; no idle power subtracted.
        "compat_hwnasbench_mj": (seen.pop("rail_mw", None) or active_mw) * label_ns / 1e9,
    }  # type: dict[str, Any]
    changes, gaps = seen.pop("changes", None), seen.get("n_gaps")
    result.update(seen)
    fault = getattr(before.meter, "fault", None)
    if fault:
        result.update(reason=fault[0], detail=fault[1])
    elif gaps:
        result["reason"] = "sensor_gap"
    elif used_uj <= 0 or (changes is not None and changes < MIN_CHANGES):
        result["reason"] = "sensor_stuck"
    elif active_mw - idle_mw < 3.0 * max(before.sd_mw, after.sd_mw):
        result["reason"] = "below_sensor_floor"
    elif drift_mw > max(IDLE_TOL_REL * idle_mw, 6.0 * idle_se_mw):
        # 6 x the standard error of the mean of both = 3 x that of their difference.
        result.update(net_mj=None, reason="idle_drift")
        return result
    if result["reason"] is not None:
        result.update(gross_mj=None, net_mj=None, compat_hwnasbench_mj=None)
    return result


def _marks(read_uj: Callable[[], int]) -> Any:
    marks = getattr(read_uj, "marks", None)
    return None if marks is None else marks()


def _step_s(read_uj: Callable[[], int], duration_s: float) -> float:
    """Length of one window: a few fresh readings at least."""
    return max(min(STEP_S, duration_s / MIN_WINDOWS), 2.0 * getattr(read_uj, "period_s", 0.0))


def _seen(before: Idle, after: Idle) -> dict[str, Any]:
    """What the meter knows of its readings during the loop and the windows around it."""
    if before.meter is None or before.begin is None:
        return {}
    begin, end = before.meter.loop
    n_updates = end.updates - begin.updates
    seen = {"n_updates": n_updates, "n_gaps": after.end.gaps - before.begin.gaps}
    if after.end.changes is not None:
        seen["changes"] = after.end.changes - before.begin.changes
        power_sum_uw = end.power_sum_uw - begin.power_sum_uw
        seen["rail_mw"] = power_sum_uw / n_updates / 1e3 if n_updates else None
    return {**before.meter.facts(), **seen}
