"""Whether a machine was quiet while it measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hwnas_sdk.core import stats
from hwnas_sdk.devices.jobs import Block, JobResult
from hwnas_sdk.devices.record_flags import cpu_wall_ratio

CPU_WALL_QUIET: Final = 0.98
SENTINEL_CV_QUIET: Final = 0.01


def quiet_verdict(results: Sequence[JobResult]) -> tuple[bool, list[str]]:
    """Return whether the machine was quiet during `results`, and what speaks against it.

    Quiet means CPU time / wall time >= 0.98 per thread over all blocks, and a coefficient of
    variation of the sentinel's block medians <= 1 %. What was not measured speaks against it.
    Source: docs/measuring.md ("A quiet machine").
    """
    reasons: list[str] = []
    ratio = _ratio_per_thread(results)
    if ratio is None:
        reasons.append("CPU time was not reported")
    elif ratio < CPU_WALL_QUIET:
        reasons.append(f"CPU/wall time {ratio:.3f} < {CPU_WALL_QUIET}: other work ran")
    medians = stats.block_medians(
        [block.samples_ns for result in results for block in result.sentinel]
    )
    if medians.size < 2:
        reasons.append("fewer than two sentinel blocks")
    else:
        variation = stats.cv(medians)
        if variation > SENTINEL_CV_QUIET:
            reasons.append(
                f"the sentinel varied by {100 * variation:.1f} % > {100 * SENTINEL_CV_QUIET:.0f} %"
            )
    return not reasons, reasons


def _ratio_per_thread(results: Sequence[JobResult]) -> float | None:
    """Wall-time weighted mean of CPU/wall per thread."""
    ratios: list[float] = []
    weights: list[int] = []
    for result in results:
        options = result.environment.get("options") or {}
        threads = int(options.get("threads") or 1)
        blocks: list[Block] = [block for item in result.items for block in item.blocks]
        ratio = cpu_wall_ratio([*blocks, *result.sentinel])
        if ratio is not None:
            ratios.append(ratio / threads)
            weights.append(sum(block.wall_ns or 0 for block in [*blocks, *result.sentinel]))
    return float(np.average(ratios, weights=weights)) if ratios else None
