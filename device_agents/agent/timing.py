"""The timed loops. One call of `run` is one inference; only that call is between two clock reads.

Source: docs/measuring.md; warm-up and blocks as in the measurement specification, 2.4 and 2.5.
"""

from __future__ import annotations

import gc
import math
import resource
import statistics
import time
from typing import Any, Callable

Run = Callable[[], object]


def n_runs(settings: dict[str, Any], latency_ns: float) -> int:
    """Inferences per block.

    The least number of runs gives way where it would take a slow network beyond its share of
    `max_timed_s`: one inference of a second is a block, not ten of them.
    """
    latency_s = max(latency_ns, 1.0) / 1e9
    enough = math.ceil(settings["block_min_s"] / latency_s)
    share_s = max(settings["max_timed_s"], settings["min_timed_s"]) / settings["min_blocks"]
    least = min(settings["block_min_runs"], max(1, int(share_s / latency_s)))
    return int(min(max(least, enough), settings["block_max_runs"]))


def timed_block(run: Run, n: int) -> dict[str, Any]:
    """Time `n` consecutive inferences singly; garbage collection waits.

    `cpu_ns` is the CPU time of all threads of this process, `wall_ns` the length of the loop.
    """
    clock = time.perf_counter_ns
    samples_ns = [0] * n
    indices = range(n)
    gc.disable()
    try:
        t_ns = time.monotonic_ns()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_ns = time.process_time_ns()
        wall_ns = clock()
        for index in indices:
            start = clock()
            run()
            samples_ns[index] = clock() - start
        wall_ns = clock() - wall_ns
        cpu_ns = time.process_time_ns() - cpu_ns
        after = resource.getrusage(resource.RUSAGE_SELF)
    finally:
        gc.enable()
    return {
        "samples_ns": [max(sample, 1) for sample in samples_ns],
        "cpu_ns": cpu_ns,
        "wall_ns": wall_ns,
        "nvcsw": after.ru_nvcsw - usage.ru_nvcsw,
        "nivcsw": after.ru_nivcsw - usage.ru_nivcsw,
        "t_ns": t_ns,
    }


def warm_up(
    run: Run, settings: dict[str, Any], min_s: float, check: Callable[[], None]
) -> tuple[dict[str, Any], float]:
    """Run until two consecutive groups agree; returns the "warmed" facts and the latency in ns.

    Args:
        run: one inference.
        settings: a MeasureSettings object.
        min_s: shortest warm-up (a network that was warm a moment ago needs none).
        check: called before each inference; raises to stop.
    """
    clock = time.perf_counter_ns
    begin = clock()
    runs, converged = 0, False
    previous = None  # type: float | None
    group = []  # type: list[int]
    gc.disable()
    try:
        while True:
            check()
            start = clock()
            run()
            end = clock()
            group.append(end - start)
            runs += 1
            elapsed_s = (end - begin) / 1e9
            full = len(group) >= settings["warmup_group_runs"]
            if full:
                median = statistics.median(group)
                if previous is not None:
                    converged = abs(median - previous) <= settings["warmup_rel_tol"] * previous
                previous = median
            enough = elapsed_s >= min_s and runs >= settings["warmup_min_runs"]
            if (full and enough and converged) or elapsed_s >= settings["warmup_max_s"]:
                break
            if full:
                group = []
    finally:
        gc.enable()
    facts = {"runs": runs, "duration_ns": clock() - begin, "converged": converged}
    return facts, max(float(statistics.median(group)), 1.0)
