"""From a board's events to a `JobResult`: the same for a live stream and for a fetched journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import numpy as np

from hwnas_sdk.devices.jobs import (
    SENTINEL,
    UNFINISHED_CODE,
    Block,
    ItemResult,
    JobResult,
    MeasureJob,
    Outcome,
)

_MIB: Final = 2**20
_OUTCOMES: Final = ("done", "cancelled", "deadline", "crashed")
_KNOWN: Final = {"type", "seq", "job", "event", "item", "t_ns"}


class JournalError(Exception):
    """The events contradict the protocol; the message says how."""


class _ItemState:
    """What is known of one item so far."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.facts: dict[str, Any] = {}
        self.loaded: Mapping[str, Any] = {}
        self.energy: Mapping[str, Any] = {}
        self.error: tuple[str, str] | None = None
        self.finished = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.finished or self.error is not None


class JobAssembler:
    """Collects the events of one job, in order and each once.

    Attributes:
        last_seq: sequence number of the last event taken, 0 before the first.
    """

    def __init__(self, job: MeasureJob) -> None:
        self._job = job
        self._items = {entry.item: _ItemState() for entry in job.items}
        self._sentinel: list[Block] = []
        self._environment: dict[str, Any] = {}
        self._done: Mapping[str, Any] | None = None
        self.last_seq = 0
        self._overlap_seq = 0

    @property
    def is_done(self) -> bool:
        """Whether the job's last event arrived."""
        return self._done is not None

    @property
    def n_over(self) -> int:
        """Items that are finished or failed."""
        return sum(state.over for state in self._items.values())

    def expect_overlap(self, last_seq: int) -> None:
        """Accept that events up to `last_seq` may arrive a second time (replayed and live)."""
        self._overlap_seq = max(self._overlap_seq, last_seq)

    def feed(self, event: Mapping[str, Any]) -> bool:
        """Take one event of this job; returns False for one that was already taken.

        Raises: JournalError when it is malformed, out of order, or about an unknown item.
        """
        seq = _integer(event, "seq")
        if seq <= min(self.last_seq, self._overlap_seq):
            return False
        first_ones = self.last_seq == 0 and seq in {0, 1}
        if seq != self.last_seq + 1 and not first_ones:
            raise JournalError(f"event {seq} came after event {self.last_seq}")
        if self._done is not None:
            raise JournalError(f"event {seq} came after the end of the job")
        kind = event.get("event")
        handler = self._handlers().get(kind) if isinstance(kind, str) else None
        if handler is not None:  # unknown events are news from a newer agent: ignored
            try:
                handler(event)
            except (KeyError, TypeError, ValueError, OverflowError) as exc:
                raise JournalError(f"event {seq} ({kind}) is malformed: {exc!r}") from exc
        self.last_seq = seq
        return True

    def result(self, *, extra_environment: Mapping[str, Any] | None = None) -> JobResult:
        """Return what has been collected; without the last event the outcome is "crashed"."""
        done = self._done or {}
        outcome: Outcome = "crashed"
        if done.get("outcome") in _OUTCOMES:
            outcome = cast("Outcome", done["outcome"])
        environment = {**self._environment, **(extra_environment or {})}
        if isinstance(done.get("environment"), dict):
            environment["end"] = done["environment"]
        if isinstance(done.get("throttle"), dict):
            environment["throttle"] = done["throttle"]
        facts = [state.facts for state in self._items.values()]
        return JobResult(
            job_id=self._job.id,
            items=tuple(
                self._item_result(name, state, outcome) for name, state in self._items.items()
            ),
            sentinel=tuple(sorted(self._sentinel, key=lambda block: block.t_ns)),
            warmup_s=_total_s(done, "warmup_ns", facts),
            timed_s=_total_s(done, "timed_ns", facts),
            load_s=_total_s(done, "load_ns", facts),
            sentinel_s=_seconds(done.get("sentinel_ns")),
            wall_s=_seconds(done.get("wall_ns")),
            environment=environment,
            outcome=outcome,
        )

    def _handlers(self) -> dict[str, Callable[[Mapping[str, Any]], None]]:
        return {
            "job_started": self._on_started,
            "loaded": self._on_loaded,
            "warmed": self._on_warmed,
            "block": self._on_block,
            "finished": self._on_finished,
            "failed": self._on_failed,
            "job_done": self._on_done,
        }

    def _on_started(self, event: Mapping[str, Any]) -> None:
        self._environment = dict(event.get("environment") or {})
        options = dict(event.get("options") or {})
        effective = options.pop("effective", None)
        if isinstance(effective, dict):
            options.update(effective)
        self._environment["options"] = options

    def _on_loaded(self, event: Mapping[str, Any]) -> None:
        state = self._state(event)
        if state is None:
            return
        state.loaded = event
        state.facts.update(_rest(event))

    def _on_warmed(self, event: Mapping[str, Any]) -> None:
        state = self._state(event)
        if state is not None:
            state.facts["warmup"] = _rest(event)

    def _on_block(self, event: Mapping[str, Any]) -> None:
        block = _block_of(event)
        state = self._state(event)
        (self._sentinel if state is None else state.blocks).append(block)

    def _on_finished(self, event: Mapping[str, Any]) -> None:
        state = self._state(event)
        if state is None:
            return
        state.finished = True
        state.energy = event.get("energy") or {}
        state.facts.update(_rest(event))

    def _on_failed(self, event: Mapping[str, Any]) -> None:
        state = self._state(event)
        code, message = str(event["code"]), str(event.get("message") or event["code"])
        if state is not None:
            state.error = (code, message)
        else:
            self._environment["sentinel_error"] = {"code": code, "message": message}

    def _on_done(self, event: Mapping[str, Any]) -> None:
        self._done = event

    def _state(self, event: Mapping[str, Any]) -> _ItemState | None:
        """State of the event's item; None for the sentinel."""
        name = event["item"]
        if name == SENTINEL:
            return None
        if name not in self._items:
            raise ValueError(f"unknown item {name!r}")
        return self._items[name]

    @staticmethod
    def _item_result(name: str, state: _ItemState, outcome: Outcome) -> ItemResult:
        error = state.error
        if error is None and not state.finished:
            error = (UNFINISHED_CODE[outcome], f"the job ended before its end ({outcome})")
        peak_bytes = state.loaded.get("peak_memory_bytes")
        return ItemResult(
            item=name,
            blocks=tuple(state.blocks),
            load_ms=_milliseconds(state.loaded.get("load_ns")),
            first_ms=_milliseconds(state.loaded.get("first_ns")),
            peak_memory_mib=None if peak_bytes is None else float(peak_bytes) / _MIB,
            energy_mj=_number(state.energy.get("gross_mj")),
            energy_net_mj=_number(state.energy.get("net_mj")),
            energy_reason=state.energy.get("reason"),
            error_code=None if error is None else error[0],
            error_message=None if error is None else error[1],
            facts=state.facts,
        )


def _block_of(event: Mapping[str, Any]) -> Block:
    samples_ns = np.array(event["samples_ns"], dtype=np.int64)
    if samples_ns.ndim != 1 or samples_ns.size == 0 or int(samples_ns.min()) <= 0:
        raise ValueError("a block needs positive samples")
    clock = event.get("freq_khz")
    if isinstance(clock, list):
        readable = [int(value) for value in clock if value is not None]
        clock = min(readable) if readable else None
    return Block(
        samples_ns=samples_ns,
        cpu_ns=_optional_int(event, "cpu_ns"),
        wall_ns=_optional_int(event, "wall_ns"),
        nvcsw=_optional_int(event, "nvcsw"),
        nivcsw=_optional_int(event, "nivcsw"),
        freq_khz=None if clock is None else int(clock),
        temperature_c=_number(event.get("temperature_c")),
        steal_ns=_optional_int(event, "steal_ns"),
        throttle=_optional_int(event, "throttle"),
        t_ns=_optional_int(event, "t_ns") or 0,
    )


def _rest(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in _KNOWN}


def _integer(event: Mapping[str, Any], key: str) -> int:
    value = event.get(key)
    if not isinstance(value, int):
        raise JournalError(f"an event has no {key}")
    return value


def _optional_int(event: Mapping[str, Any], key: str) -> int | None:
    value = event.get(key)
    return None if value is None else int(value)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _milliseconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6


def _seconds(value_ns: int | None) -> float:
    return 0.0 if value_ns is None else value_ns / 1e9


def _total_s(done: Mapping[str, Any], key: str, facts: list[dict[str, Any]]) -> float:
    """The job's own total, or (without its last event) the sum of what its items reported."""
    if done.get(key) is not None:
        return _seconds(done[key])
    return sum(_seconds(entry.get(key)) for entry in facts)
