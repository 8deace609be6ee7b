"""What can be said against a measurement: every flag that follows from the facts of one item.

A contended or drifted label is marked, never rescaled: the factor differs between networks.
Source: docs/measuring.md; flags are those of `core/flags.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core import stats
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING, UNSTEADY
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.devices.jobs import Block, ItemResult, JobResult, MeasureJob

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
class Context:
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


def flags_of(
    context: Context,
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
    if context.spec.machine == "emulated" and flags & UNSTEADY:
        # An emulator's times say nothing of a processor and enter no data set, however steady they
        # are: its records are there to try the way to a board and back, also on a busy host. Not
        # in `status_of`: what is stored must go on having the status it was stored with.
        flags = (flags - UNSTEADY) | {"unsteady"}
    return tuple(sorted(flags, key=_ORDER.__getitem__))


def _machine_flags(context: Context) -> set[str]:
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
    limit_c = first_known(
        context.spec.details.get("temperature_limit_c"), end.get("temperature_limit_c")
    )
    end_c = end.get("temperature_c")
    if limit_c is not None and end_c is not None and end_c > limit_c:
        flags.add("too_hot")
    return flags


def _load_flags(context: Context, blocks: Sequence[Block]) -> set[str]:
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
    wall_ns = known_sum([block.wall_ns for block in blocks])
    steal_ns = known_sum([block.steal_ns for block in blocks])
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


def _throttled_beside(context: Context, blocks: Sequence[Block]) -> bool:
    """Whether a block lies in an interval at whose end the board said that it had throttled."""
    throttle = context.result.environment.get("throttle")
    seen = throttle.get("seen") if isinstance(throttle, Mapping) else None
    return any(
        block.t_ns <= end_ns and block.t_ns + (block.wall_ns or 0) >= begin_ns
        for begin_ns, end_ns, _ in seen or ()
        for block in blocks
    )


def _precision_flags(
    context: Context,
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


def _sentinel_flags(context: Context, blocks: Sequence[Block]) -> set[str]:
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


def _bracket(context: Context, blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Sentinel medians from the last one before the item's first block to the first one after."""
    if not blocks or context.sentinel_ms.size == 0:
        return context.sentinel_ms
    times_ns = np.array([block.t_ns for block in context.result.sentinel])
    begin_ns = min(block.t_ns for block in blocks)
    end_ns = max(block.t_ns for block in blocks)
    first = max(int(np.searchsorted(times_ns, begin_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(times_ns, end_ns, side="left"))
    return context.sentinel_ms[first : last + 1]


def _item_flags(context: Context, got: ItemResult) -> set[str]:
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


def first_known(*values: Any) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)


def known_sum(values: Sequence[int | None]) -> int | None:
    """Sum of the readable values, None when nothing was readable."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
