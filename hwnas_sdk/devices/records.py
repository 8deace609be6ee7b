"""From what a device said to measurements: labels, spreads and flags. Pure functions.

The board reports facts; every judgement is made here, so old results can be judged again. A
contended or drifted label is marked, never rescaled: the factor differs between networks.
Source: docs/measuring.md; flags are those of `core/flags.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core import stats
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING
from hwnas_sdk.core.types import DeviceSpec, Measurement, Origin
from hwnas_sdk.devices.board import board_facts
from hwnas_sdk.devices.jobs import Block, ItemResult, JobItem, JobResult, MeasureJob

CPU_WALL_MIN: Final = 0.90
STEAL_MAX_REL: Final = 0.01
STEAL_TICK_NS: Final = 10_000_000
"""Resolution of the kernel's steal counter; one tick more or less says nothing."""
FREQUENCY_TOL_REL: Final = 0.05
FREQUENCY_MAX_SHARE: Final = 0.05
SENTINEL_TOL_REL: Final = {"bare": 0.03, "virtualised": 0.10, "emulated": 0.10}
BASELINE_TOL_REL: Final = 0.10
OUTLIERS_MAX_SHARE: Final = 0.02
CLOCK_TOL_REL: Final = 0.01
CLOCK_MIN_S: Final = 5.0
CPU_PROVIDERS: Final = ("CPUExecutionProvider", "CPU")
"""Elsewhere the processor waits for the accelerator: CPU time says nothing of others' work."""
P90_MIN_SAMPLES: Final = 64
"""LoadGen's early-stopping minimum for the 90th percentile."""

_ORDER: Final = {flag: rank for rank, flag in enumerate([*INVALIDATING, *INFORMATIVE])}
_CODE_FLAGS: Final[Mapping[str, str]] = {
    "timeout": "timeout",
    "deadline": "timeout",
    "truncated": "truncated",
    "lease_lost": "lease_lost",
    "too_hot": "too_hot",
    "provider_fallback": "provider_fallback",
    "output_mismatch": "output_mismatch",
    "output_not_finite": "output_not_finite",
}


@dataclass(frozen=True, slots=True)
class _Context:
    """What all items of one job share."""

    job: MeasureJob
    result: JobResult
    spec: DeviceSpec
    sentinel_ms: NDArray[np.float64]
    baseline_ms: float | None

    @property
    def options(self) -> Mapping[str, Any]:
        """What the board really used."""
        options = self.result.environment.get("options")
        return options if isinstance(options, Mapping) else {}

    @property
    def requested(self) -> Mapping[str, Any]:
        """What the host asked for."""
        requested = self.result.environment.get("requested")
        return requested if isinstance(requested, Mapping) else {}


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
    context = _Context(job, result, spec, sentinel_ms, baseline_sentinel_ms)
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
    context: _Context, entry: JobItem, got: ItemResult, origin: Origin, run_id: str, attempt: int
) -> Measurement:
    samples_ms = _pooled_ms(got.blocks)
    medians_ms = _block_values_ms(got)
    latency_ms = float(np.median(medians_ms)) if medians_ms.size else got.summary_latency_ms
    if got.error_code is not None and not got.blocks:
        latency_ms = None
    ci95_ms = stats.ci_half_width(medians_ms)
    flags = _flags_of(context, got, medians_ms, samples_ms, latency_ms=latency_ms, ci95_ms=ci95_ms)
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
    context: _Context,
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
            "tuned": _first_known(got.facts.get("tuned"), context.options.get("tuned")),
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
            "involuntary_switches": _known_sum([block.nivcsw for block in got.blocks]),
            "voluntary_switches": _known_sum([block.nvcsw for block in got.blocks]),
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


def _flags_of(
    context: _Context,
    got: ItemResult,
    medians_ms: NDArray[np.float64],
    samples_ms: NDArray[np.float64],
    *,
    latency_ms: float | None,
    ci95_ms: float | None,
) -> tuple[str, ...]:
    """Every flag that follows from the facts of one item, in the vocabulary's order."""
    flags = {
        *_machine_flags(context),
        *_load_flags(context, got.blocks),
        *_precision_flags(context, medians_ms, samples_ms, latency_ms, ci95_ms),
        *_sentinel_flags(context, got.blocks),
        *_item_flags(context, got),
        *_energy_flags(got.facts.get("energy") or {}),
    }
    return tuple(sorted(flags, key=_ORDER.__getitem__))


def _machine_flags(context: _Context) -> set[str]:
    """What the machine and the way it was prepared say."""
    environment, options, requested = context.result.environment, context.options, context.requested
    flags: set[str] = set()
    if context.spec.machine != "bare":
        flags.add(context.spec.machine)
    end = environment.get("end")
    end = end if isinstance(end, Mapping) else {}
    governors = {environment.get("governor"), end.get("governor")} - {None}
    if governors - {"performance"}:
        flags.add("governor_not_pinned")
    wanted_nice, nice = requested.get("nice"), options.get("nice")
    if wanted_nice is not None and options and (nice is None or nice > wanted_nice):
        flags.add("nice_denied")
    if requested.get("affinity") is not None and options and not options.get("cores"):
        flags.add("affinity_denied")
    clock = environment.get("clock")
    if isinstance(clock, Mapping) and clock["host_s"] >= CLOCK_MIN_S:
        slack_s = max(CLOCK_TOL_REL * clock["host_s"], 0.1)
        if abs(clock["host_s"] - clock["board_s"]) > slack_s:
            flags.add("clock_unreliable")
    limit_c = _first_known(
        context.spec.details.get("temperature_limit_c"), end.get("temperature_limit_c")
    )
    end_c = end.get("temperature_c")
    if limit_c is not None and end_c is not None and end_c > limit_c:
        flags.add("too_hot")
    return flags


def _load_flags(context: _Context, blocks: Sequence[Block]) -> set[str]:
    """What other work, the hypervisor and the clock did during the blocks."""
    flags: set[str] = set()
    threads = int(context.options.get("threads") or context.job.settings.threads)
    ratios = [ratio for block in blocks if (ratio := cpu_wall_ratio([block])) is not None]
    total = cpu_wall_ratio(blocks)
    # The label is a median over blocks: it is spoilt by a contended majority of short blocks even
    # when the long ones keep the sums in order, and the sums catch one very bad block.
    is_cpu = (context.options.get("providers") or CPU_PROVIDERS)[0] in CPU_PROVIDERS
    limit = CPU_WALL_MIN * threads
    if is_cpu and total is not None and min(total, float(np.median(ratios))) < limit:
        flags.add("contended")
    wall_ns = _known_sum([block.wall_ns for block in blocks])
    steal_ns = _known_sum([block.steal_ns for block in blocks])
    if wall_ns and steal_ns is not None and steal_ns - STEAL_TICK_NS > STEAL_MAX_REL * wall_ns:
        flags.add("steal")
    if any(block.throttle for block in blocks) or _throttled_beside(context, blocks):
        flags.add("throttled")
    clocks = np.array([block.freq_khz for block in blocks if block.freq_khz], dtype=np.float64)
    if clocks.size:
        left = np.abs(clocks / clocks[0] - 1.0) > FREQUENCY_TOL_REL
        if float(left.mean()) > FREQUENCY_MAX_SHARE:
            flags.add("frequency_changed")
    return flags


def _throttled_beside(context: _Context, blocks: Sequence[Block]) -> bool:
    """Whether a block lies in an interval at whose end the board said that it had throttled."""
    throttle = context.result.environment.get("throttle")
    seen = throttle.get("seen") if isinstance(throttle, Mapping) else None
    return any(
        block.t_ns <= end_ns and block.t_ns + (block.wall_ns or 0) >= begin_ns
        for begin_ns, end_ns, _ in seen or ()
        for block in blocks
    )


def _precision_flags(
    context: _Context,
    medians_ms: NDArray[np.float64],
    samples_ms: NDArray[np.float64],
    latency_ms: float | None,
    ci95_ms: float | None,
) -> set[str]:
    """How sure the label is."""
    settings = context.job.settings
    flags: set[str] = set()
    if latency_ms is not None and not samples_ms.size:
        flags.add("summary_only")
    if latency_ms and ci95_ms is not None:
        if ci95_ms > settings.ci_rel_invalid * latency_ms:
            flags.add("ci_too_wide")
        elif settings.ci_rel_target > 0.0 and ci95_ms > settings.ci_rel_target * latency_ms:
            flags.add("imprecise")
    if stats.outlier_fraction(samples_ms) > OUTLIERS_MAX_SHARE:
        flags.add("outliers_high")
    if stats.is_bimodal(medians_ms):
        flags.add("bimodal")
    return flags


def _sentinel_flags(context: _Context, blocks: Sequence[Block]) -> set[str]:
    """Whether the reference network beside the item ran as fast as before."""
    spread_tol = SENTINEL_TOL_REL[context.spec.machine]
    near_ms = _bracket(context, blocks)
    if near_ms.size == 0 or (near_ms.size == 1 and context.baseline_ms is None):
        return {"drift_unchecked"}
    drifted = float(near_ms.max() / near_ms.min()) - 1.0 > spread_tol
    if context.baseline_ms is not None:
        ratios = near_ms / context.baseline_ms
        drifted |= bool(np.any(np.abs(ratios - 1.0) > BASELINE_TOL_REL))
    return {"sentinel_drift"} if drifted else set()


def _bracket(context: _Context, blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Sentinel medians from the last one before the item's first block to the first one after."""
    if not blocks or context.sentinel_ms.size == 0:
        return context.sentinel_ms
    times_ns = np.array([block.t_ns for block in context.result.sentinel])
    begin_ns = min(block.t_ns for block in blocks)
    end_ns = max(block.t_ns for block in blocks)
    first = max(int(np.searchsorted(times_ns, begin_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(times_ns, end_ns, side="left"))
    return context.sentinel_ms[first : last + 1]


def _item_flags(context: _Context, got: ItemResult) -> set[str]:
    """What the item itself reported, and what is missing from it."""
    flags: set[str] = set()
    facts = got.facts
    if facts.get("throttled"):
        flags.add("throttled")
    if facts.get("output_finite") is False:
        flags.add("output_not_finite")
    wanted = context.requested.get("providers") or context.options.get("providers")
    used = facts.get("providers") or context.options.get("providers")
    if wanted and used and used[0] != wanted[0]:
        flags.add("provider_fallback")
    matches = facts.get("output_matches")
    if matches is False:
        flags.add("output_mismatch")
    elif matches is None and got.error_code is None:
        flags.add("output_unchecked")
    if (facts.get("warmup") or {}).get("converged") is False:
        flags.add("warmup_unstable")
    n_blocks = facts.get("n_blocks")
    if n_blocks is not None and n_blocks != len(got.blocks):
        flags.add("truncated")
    if got.error_code is not None:
        flag = _CODE_FLAGS.get(got.error_code)
        if flag is not None:
            flags.add(flag)
        elif got.blocks:
            flags.add("truncated")
    elif got.blocks and len(got.blocks) < context.job.settings.min_blocks:
        flags.add("truncated")
    return flags


def _energy_flags(energy: Mapping[str, Any]) -> set[str]:
    """Whether the energy loop ran as the timed blocks did, between two equal idle windows."""
    flags = {"energy_loop_differs"} if energy.get("loop_differs") else set()
    return flags | ({"energy_idle_drift"} if energy.get("reason") == "idle_drift" else set())


def cpu_wall_ratio(blocks: Sequence[Block]) -> float | None:
    """CPU time / wall time over `blocks`; about the number of threads when nobody else works."""
    cpu_ns, wall_ns = 0, 0
    for block in blocks:
        if block.cpu_ns is not None and block.wall_ns is not None:
            cpu_ns += block.cpu_ns
            wall_ns += block.wall_ns
    return cpu_ns / wall_ns if wall_ns > 0 else None


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


def _first_known(*values: Any) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)


def _known_sum(values: Sequence[int | None]) -> int | None:
    """Sum of the readable values, None when nothing was readable."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
