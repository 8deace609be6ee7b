"""From what a device said to measurements: labels and spreads. Pure functions.

The board reports facts; every judgement is made here and in `record_flags`, so old results can be
judged again. Source: docs/measuring.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core import stats
from hwnas_sdk.core.types import DeviceSpec, Measurement, Origin
from hwnas_sdk.devices.board import board_facts
from hwnas_sdk.devices.jobs import Block, ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.record_flags import (
    Context,
    cpu_wall_ratio,
    first_known,
    flags_of,
    known_sum,
)

P90_MIN_SAMPLES: Final = 64
"""LoadGen's early-stopping minimum for the 90th percentile."""


def measurements_of(
    job: MeasureJob,
    result: JobResult,
    *,
    spec: DeviceSpec,
    origin: Origin,
    baseline_sentinel_ms: float | None,
    run_id: str,
    attempt_of: Callable[[str], int],
) -> list[tuple[Measurement, list[NDArray[np.int64]]]]:
    """Turn `result` into one measurement (with its raw samples) per item that was tried.

    Items the job never came to (it was cancelled, or the board died) give no record: they were not
    measured, so they did not fail. Failed items give one without a latency, which is invalid.

    Args:
        job: what was asked for.
        result: what came back.
        spec: the device.
        origin: of its numbers.
        baseline_sentinel_ms: the reference network's latency when the device was registered.
        run_id: the run it belongs to.
        attempt_of: item name -> number of this attempt, from 1.
    """
    sentinel_ms = stats.block_medians([block.samples_ns for block in result.sentinel]) / 1e6
    context = Context(job, result, spec, sentinel_ms, baseline_sentinel_ms)
    by_name = {entry.item: entry for entry in result.items}
    records = []
    for entry in job.items:
        got = by_name.get(entry.item)
        if got is None or not got.was_tried:
            continue
        measurement = _measurement(context, entry, got, origin, run_id, attempt_of(entry.item))
        records.append((measurement, [block.samples_ns for block in got.blocks]))
    return records


def _measurement(
    context: Context, entry: JobItem, got: ItemResult, origin: Origin, run_id: str, attempt: int
) -> Measurement:
    samples_ms = _pooled_ms(got.blocks)
    medians_ms = _block_values_ms(got)
    latency_ms = float(np.median(medians_ms)) if medians_ms.size else got.summary_latency_ms
    if got.error_code is not None and not got.blocks:
        latency_ms = None
    ci95_ms = stats.ci_half_width(medians_ms)
    flags = flags_of(context, got, medians_ms, samples_ms, latency_ms=latency_ms, ci95_ms=ci95_ms)
    has_tail = samples_ms.size >= P90_MIN_SAMPLES
    iqr_ms = None
    if samples_ms.size:
        low, high = np.quantile(samples_ms, [0.25, 0.75])
        iqr_ms = float(high - low)
    return Measurement(
        arch_id=entry.arch_id,
        artifact_sha256="" if entry.artifact is None else entry.artifact.sha256,
        device_id=context.spec.id,
        settings_id=context.job.settings.id,
        origin=origin,
        latency_ms=latency_ms,
        latency_p90_ms=float(np.quantile(samples_ms, 0.9)) if has_tail else None,
        latency_iqr_ms=iqr_ms,
        ci95_ms=ci95_ms,
        first_ms=got.first_ms,
        load_ms=got.load_ms,
        energy_mj=got.energy_mj,
        energy_net_mj=got.energy_net_mj,
        energy_reason=got.energy_reason if got.energy_mj is None else None,
        peak_memory_mib=got.peak_memory_mib,
        n_samples=int(samples_ms.size),
        flags=flags,
        environment={**context.result.environment, "board": board_facts(context.spec)},
        details=_details(context, got, medians_ms, samples_ms),
        measured_at=str(context.result.environment.get("measured_at", "")),
        run_id=run_id,
        item=entry.item,
        attempt=attempt,
    )


def _details(
    context: Context,
    got: ItemResult,
    medians_ms: NDArray[np.float64],
    samples_ms: NDArray[np.float64],
) -> dict[str, Any]:
    warmup = got.facts.get("warmup") or {}
    timed_ns = sum(int(block.samples_ns.sum()) for block in got.blocks)
    details: dict[str, Any] = {
        "block_medians_ms": medians_ms.tolist(),
        "n_blocks": int(medians_ms.size),
        "warmup_s": warmup.get("duration_ns", 0) / 1e9,
        "warmup_runs": warmup.get("runs"),
        "timed_s": timed_ns / 1e9,
        "sentinel_ms": context.sentinel_ms.tolist(),
        "sentinel_t_s": _seconds_since_first(context.result.sentinel),
        "cpu_wall_ratio": cpu_wall_ratio(got.blocks),
        "stop": got.facts.get("stop"),
        "runtime": {
            "name": context.job.settings.runtime,
            **context.options,
            "version": context.options.get("runtime_version"),
            "tuned": first_known(got.facts.get("tuned"), context.options.get("tuned")),
        },
        "outcome": context.result.outcome,
        "seed": context.job.seed,
        "job": context.job.id,
        "job_wall_s": context.result.wall_s,
    }
    if samples_ms.size:
        details |= {
            "min_ms": float(samples_ms.min()),
            "max_ms": float(samples_ms.max()),
            "mean_ms": float(samples_ms.mean()),
            "sd_ms": float(samples_ms.std(ddof=1)) if samples_ms.size > 1 else 0.0,
            "mad_ms": stats.mad(samples_ms),
            "outlier_share": stats.outlier_fraction(samples_ms),
            "involuntary_switches": known_sum([block.nivcsw for block in got.blocks]),
            "voluntary_switches": known_sum([block.nvcsw for block in got.blocks]),
        }
    if got.error_code is not None:
        details |= {"error_code": got.error_code, "error_message": got.error_message}
    for key in (
        "runtime_memory_bytes",
        "peak_memory_reason",
        "input_shapes",
        "energy",
        "invocations",
        "raw_text",
        "simulation",
    ):
        if got.facts.get(key) is not None:
            details[key] = got.facts[key]
    return details


def _seconds_since_first(blocks: Sequence[Block]) -> list[float]:
    """When each block was taken, after the first one."""
    return [(block.t_ns - blocks[0].t_ns) / 1e9 for block in blocks]


def _block_values_ms(got: ItemResult) -> NDArray[np.float64]:
    """Median of each block; of a runner that tells no single runs, its summary of each block."""
    if not got.blocks:
        return np.array(got.facts.get("block_summaries_ms") or [], dtype=np.float64)
    return stats.block_medians([block.samples_ns for block in got.blocks]) / 1e6


def _pooled_ms(blocks: Sequence[Block]) -> NDArray[np.float64]:
    if not blocks:
        return np.empty(0)
    return np.concatenate([block.samples_ns for block in blocks]) / 1e6
