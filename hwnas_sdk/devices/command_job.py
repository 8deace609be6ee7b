"""Planning a job of runner invocations, and reading its results. Pure functions.

One invocation is one block: the program starts, loads the network, warms up and runs it `runs`
times. First each network is tried once (calibration, its times are not used), then come rounds of
one invocation per network in random order, with the reference network between them.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.devices.command_energy import energy_of, energy_runs
from hwnas_sdk.devices.command_runners import ParseError, Runner, Timings
from hwnas_sdk.devices.jobs import (
    SENTINEL,
    UNFINISHED_CODE,
    Block,
    ItemResult,
    JobResult,
    MeasureJob,
    Outcome,
)

BLOCKS: Final = 7
"""Invocations per network; source: measurement protocol, summary-only runners."""
CALIBRATE_WARMUP, CALIBRATE_RUNS, CALIBRATE_LIMIT_S = 1, 4, 120
_TICK_NS: Final = 10_000_000
"""Resolution of a shell's `times`: two reads may miss up to two of them."""
_RAW_CHARS: Final = 4000
_STATES: Final[Mapping[str, Outcome]] = {
    "done": "done",
    "cancelled": "cancelled",
    "deadline": "deadline",
}
_CPU_TIME: Final = re.compile(r"(\d+)m\s*(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One start of the runner.

    Attributes:
        number: place in the job, from 1.
        item: the network, or the sentinel.
        is_block: whether its times are used (else it is a calibration, or for energy).
        warmup_runs, runs: untimed and timed runs.
        limit_s: it is killed after this.
        is_energy: whether the battery's gauge is read beside it.
    """

    number: int
    item: str
    is_block: bool
    warmup_runs: int
    runs: int
    limit_s: int
    is_energy: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an invocation: timings, or an error."""

    timings: Timings | None
    error: tuple[str, str] | None
    raw: str
    began_s: float
    wall_s: float
    cpu_s: float | None


def plan_calibration(items: Sequence[str]) -> list[Invocation]:
    """One short invocation per network."""
    return [
        Invocation(
            number=number,
            item=item,
            is_block=False,
            warmup_runs=CALIBRATE_WARMUP,
            runs=CALIBRATE_RUNS,
            limit_s=CALIBRATE_LIMIT_S,
        )
        for number, item in enumerate(items, start=1)
    ]


def plan_blocks(
    settings: MeasureSettings, tried: Mapping[str, Ended], *, first: int, seed: int
) -> list[Invocation]:
    """Rounds over the networks (and the sentinel) that the calibration could run.

    The sentinel comes first, last, and whenever `sentinel_max_gap_s` will have passed.
    """
    usable = {item: entry for item, entry in tried.items() if entry.timings is not None}
    items = [item for item in usable if item != SENTINEL]
    if not items:
        return []
    rng = random.Random(seed)
    order: list[str] = []
    for _ in range(n_blocks(settings)):
        rng.shuffle(items)
        order += items
    lengths = {item: _length_s(settings, entry) for item, entry in usable.items()}
    if SENTINEL in usable:
        order = _with_sentinel(order, lengths, settings.sentinel_max_gap_s)
    return [
        _invocation(settings, usable[item], item, number)
        for number, item in enumerate(order, start=first)
    ]


def plan_energy(
    tried: Mapping[str, Ended], items: Sequence[str], *, first: int
) -> list[Invocation]:
    """One long invocation per network that could be run."""
    usable = [(item, tried[item].timings) for item in items if item in tried]
    plan: list[Invocation] = []
    for item, timings in usable:
        if timings is None:
            continue
        run_s = max(timings.summary_ms / 1e3, 1e-6)
        runs = energy_runs(run_s)
        plan.append(
            Invocation(
                number=first + len(plan),
                item=item,
                is_block=False,
                warmup_runs=1,
                runs=runs,
                limit_s=math.ceil(60.0 + 3.0 * runs * run_s),
                is_energy=True,
            )
        )
    return plan


def n_blocks(settings: MeasureSettings) -> int:
    """Invocations per network."""
    return min(max(BLOCKS, settings.min_blocks), settings.max_blocks)


def _with_sentinel(order: Sequence[str], lengths: Mapping[str, float], gap_s: float) -> list[str]:
    placed, since_s = [SENTINEL], 0.0
    for item in order:
        if since_s > 0.0 and since_s + lengths[item] > gap_s:
            placed.append(SENTINEL)
            since_s = 0.0
        placed.append(item)
        since_s += lengths[item]
    return [*placed, SENTINEL]


def _runs(settings: MeasureSettings, entry: Ended) -> tuple[int, int]:
    """Warm-up runs and timed runs of a block; the time bounds hold even for slow networks."""
    assert entry.timings is not None
    run_s = max(entry.timings.summary_ms / 1e3, 1e-6)
    runs = max(settings.block_min_runs, math.ceil(settings.block_min_s / run_s))
    warm = max(settings.warmup_min_runs, math.ceil(settings.warmup_min_s / run_s))
    warm = max(min(warm, math.ceil(settings.warmup_max_s / run_s)), 1)
    return warm, min(runs, settings.block_max_runs)


def _length_s(settings: MeasureSettings, entry: Ended) -> float:
    assert entry.timings is not None
    timings = entry.timings
    extra_s = max(entry.wall_s - timings.timed_s - timings.warmup_s, 0.0)
    return extra_s + sum(_runs(settings, entry)) * timings.summary_ms / 1e3


def _invocation(settings: MeasureSettings, entry: Ended, item: str, number: int) -> Invocation:
    warm, runs = _runs(settings, entry)
    return Invocation(
        number=number,
        item=item,
        is_block=True,
        warmup_runs=warm,
        runs=runs,
        limit_s=math.ceil(20.0 + 5.0 * _length_s(settings, entry)),
    )


# --- results --------------------------------------------------------------------------------------


def read_invocation(
    invocation: Invocation, frames: Mapping[str, str], runner: Runner
) -> Ended | None:
    """What the board noted of `invocation`; None while it has not ended."""
    number = invocation.number
    noted = frames.get(f"done.{number}")
    if noted is None:
        return None
    stdout, stderr = frames.get(f"out.{number}", ""), frames.get(f"err.{number}", "")
    result = frames.get(f"res.{number}", "")
    try:
        status_text, began, ended, limit = noted.split()
        status, began_s, wall_s = int(status_text), float(began), float(ended) - float(began)
    except ValueError:
        error = ("parse_failed", f"the board's note of an invocation is damaged: {noted[:80]!r}")
        return Ended(None, error, noted, 0.0, 0.0, None)
    raw = _raw(stdout, stderr, result)
    cpu_s = _cpu_s(frames.get(f"cpu.{number}", ""))
    timings, error1 = None, _failure(status, stdout, stderr, late=wall_s >= float(limit))
    if error1 is None:
        try:
            timings = runner.parse(stdout, stderr, result, warmup_runs=invocation.warmup_runs)
        except ParseError as exc:
            error1 = ("parse_failed", f"the output of {runner.kind} is not understood: {exc}")
        else:
            raw = ""
            if timings.runs < invocation.runs:
                timings, raw = None, _raw(stdout, stderr, result)
                error1 = ("parse_failed", f"fewer runs than the {invocation.runs} asked for")
    return Ended(timings, error1, raw, began_s, wall_s, cpu_s)


def read_result(
    job: MeasureJob,
    plan: Sequence[Invocation],
    read: Mapping[int, Ended],
    *,
    state: str,
    runner: Runner,
    bad: Mapping[str, tuple[str, str]],
    environment: Mapping[str, Any],
    throttled: bool,
    energy_reason: str | None,
    powers: Mapping[int, tuple[str, str, str]],
) -> JobResult:
    """Put together what one job brought; the same for a finished and for a broken-off one.

    Args:
        job: what was asked for.
        plan: every invocation.
        read: number -> what became of it.
        state: the board's word for how the job ended.
        runner: what ran.
        bad: networks that were not run: item -> code and message.
        environment: of the job.
        throttled: whether the board said during the job that it slows down.
        energy_reason: why there is no energy, when it was asked for.
        powers: number -> what the gauge said before, during and after that invocation.
    """
    outcome = _STATES.get(state, "crashed")
    by_item: dict[str, list[tuple[Invocation, Ended]]] = {}
    for invocation in plan:
        got = read.get(invocation.number)
        if got is not None:
            by_item.setdefault(invocation.item, []).append((invocation, got))
    wanted = n_blocks(job.settings)
    items = []
    for entry in job.items:
        if entry.item in bad:
            code, message = bad[entry.item]
            items.append(ItemResult(item=entry.item, error_code=code, error_message=message))
            continue
        got_item = _item(entry.item, by_item.get(entry.item, []), wanted, outcome, runner)
        facts = {**got_item.facts, "throttled": throttled}
        energy = _energy(by_item.get(entry.item, []), powers) if energy_reason is None else None
        if energy is not None:
            facts["energy"] = energy
        elif energy_reason is None and job.settings.energy:
            energy_reason = "no_sensor"
        items.append(
            replace(
                got_item,
                facts=facts,
                energy_mj=energy.get("gross_mj") if energy else None,
                energy_net_mj=energy.get("net_mj") if energy else None,
                energy_reason=energy["reason"] if energy else energy_reason,
            )
        )
    sentinel = by_item.get(SENTINEL, [])
    full = dict(environment)
    failed = next((got.error for _, got in sentinel if got.error), None)
    if failed or SENTINEL in bad:
        code, message = failed or bad[SENTINEL]
        full["sentinel_error"] = {"code": code, "message": message}
    every = [(invocation, got) for pairs in by_item.values() for invocation, got in pairs]
    good = [(one, got, got.timings) for one, got in every if got.timings is not None]
    own = [(got, timings) for one, got, timings in good if one.item != SENTINEL and one.is_block]
    ends = [got.began_s + got.wall_s for _, got in every]
    return JobResult(
        job_id=job.id,
        items=tuple(items),
        sentinel=tuple(_block(one, got) for one, got in sentinel if one.is_block and got.timings),
        warmup_s=sum(timings.warmup_s for _, timings in own),
        timed_s=sum(timings.timed_s for _, timings in own),
        load_s=sum(got.wall_s - timings.timed_s - timings.warmup_s for got, timings in own),
        sentinel_s=sum(got.wall_s for one, got, _ in good if one.item == SENTINEL),
        wall_s=max(ends) - min(got.began_s for _, got in every) if every else 0.0,
        environment=full,
        outcome=outcome,
    )


def _item(
    name: str,
    pairs: Sequence[tuple[Invocation, Ended]],
    wanted: int,
    outcome: Outcome,
    runner: Runner,
) -> ItemResult:
    blocks = [(one, got) for one, got in pairs if one.is_block and got.timings is not None]
    first = next((got.timings for one, got in pairs if not one.is_block and got.timings), None)
    failure = next((got for one, got in pairs if got.error and not one.is_energy), None)
    error = None if failure is None else failure.error
    if error is None and len(blocks) < wanted:
        error = (UNFINISHED_CODE[outcome], f"the job ended before its end ({outcome})")
    means_ms = [got.timings.summary_ms for _, got in blocks if got.timings is not None]
    facts: dict[str, Any] = {"invocations": [_facts(one, got) for one, got in pairs]}
    if failure is not None and failure.raw:
        facts["raw_text"] = failure.raw
    if not runner.has_samples and means_ms:
        facts["block_summaries_ms"] = means_ms
    memory = [got.timings.peak_memory_bytes for _, got in blocks if got.timings is not None]
    known = [value for value in memory if value is not None]
    return ItemResult(
        item=name,
        blocks=tuple(_block(one, got) for one, got in blocks) if runner.has_samples else (),
        summary_latency_ms=None
        if runner.has_samples or not means_ms
        else float(np.median(means_ms)),
        load_ms=None if first is None else first.load_ms,
        first_ms=None if first is None else first.first_ms,
        peak_memory_mib=max(known) / 2**20 if known else None,
        error_code=None if error is None else error[0],
        error_message=None if error is None else error[1],
        facts=facts,
    )


def _energy(
    pairs: Sequence[tuple[Invocation, Ended]], powers: Mapping[int, tuple[str, str, str]]
) -> dict[str, Any] | None:
    """The energy facts of one network; None when there was no such invocation."""
    for one, got in pairs:
        if one.is_energy and got.error is not None:
            return {"reason": got.error[0], "detail": got.error[1]}
        if one.is_energy and got.timings is not None and one.number in powers:
            return energy_of(
                *powers[one.number],
                end_s=got.began_s + got.wall_s,
                timed_s=got.timings.timed_s,
                runs=got.timings.runs,
            )
    return None


def _block(one: Invocation, got: Ended) -> Block:
    """Times of one invocation; a summary counts as one sample (only sentinels come to that).

    The shell knows the CPU time of the whole invocation, loading included. That is more than the
    runs took, so too little of it proves that other work had the core; enough proves nothing.
    """
    del one
    assert got.timings is not None
    timings = got.timings
    samples_ns = timings.samples_ns
    if samples_ns is None:
        samples_ns = np.array([round(1e6 * timings.summary_ms)], dtype=np.int64)
    cpu_ns = None if got.cpu_s is None else round(1e9 * got.cpu_s) + 2 * _TICK_NS
    return Block(
        samples_ns=samples_ns,
        cpu_ns=cpu_ns,
        wall_ns=None if cpu_ns is None else round(1e9 * (timings.timed_s + timings.warmup_s)),
        t_ns=round(1e9 * got.began_s),
    )


def _facts(one: Invocation, got: Ended) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": one.number,
        "is_block": one.is_block,
        "warmup_runs": one.warmup_runs,
        "runs": one.runs,
        "began_s": got.began_s,
        "wall_s": round(got.wall_s, 3),
        "cpu_s": got.cpu_s,
    }
    if got.timings is not None:
        facts |= {"summary_ms": got.timings.summary_ms, "statistic": got.timings.statistic}
        facts |= got.timings.facts
    return facts


def _failure(status: int, stdout: str, stderr: str, *, late: bool) -> tuple[str, str] | None:
    """Error code and message of an exit status, None for success."""
    if status == 0:
        return None
    words = _last_line(stderr) or _last_line(stdout) or f"exit status {status}"
    if late or status == 124:
        return "deadline", f"it did not end in time and was killed: {words}"
    if status in {126, 127} or "CANNOT LINK EXECUTABLE" in stderr:
        return "runner_unusable", f"the runner cannot be started: {words}"
    if status > 128:
        return "runtime_crashed", f"the runner was ended by signal {status - 128}: {words}"
    return "runtime_error", f"the runner ended with exit status {status}: {words}"


def _cpu_s(text: str) -> float | None:
    """CPU seconds of the children between two outputs of a shell's `times`; None if unreadable.

    Each is two lines, "user system" of the shell and of its children.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 4:
        return None
    found = [_CPU_TIME.findall(lines[index]) for index in (1, 3)]
    if any(len(pair) != 2 for pair in found):
        return None
    before, after = (sum(60 * int(m) + float(s) for m, s in pair) for pair in found)
    return round(after - before, 3)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _raw(stdout: str, stderr: str, result: str) -> str:
    parts = {"stdout": stdout, "stderr": stderr, "result": result}
    return "\n".join(
        f"--- {name}\n{text[-_RAW_CHARS:]}" for name, text in parts.items() if text.strip()
    )
