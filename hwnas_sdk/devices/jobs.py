"""What a device is asked for (`MeasureJob`) and what it answers (`JobResult`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Artifact

Outcome = Literal["done", "cancelled", "deadline", "crashed"]

SENTINEL = "@sentinel"
"""Item name of the reference network in a board's events."""

UNFINISHED_CODE: Mapping[str, str] = {
    "done": "truncated",
    "cancelled": "cancelled",
    "deadline": "timeout",
    "crashed": "truncated",
}
"""Error code of an item that its job, by the job's outcome, never got to finish."""

_JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class JobItem:
    """One network of a job.

    Attributes:
        item: name of the network in this job, unique there.
        arch_id: `Architecture.id`, or ``file:<sha12>``.
        arch: official string of the architecture (what a table is looked up by).
        artifact: the file to run; None for devices that need none (`needs_artifacts` is False).
        expected: the host's output for the input of `input_seed` (first 64 values), or None when
            nobody computed it.
        input_seed: seed of the input the device feeds.
        folded: which form of the architecture, for devices that make the network themselves.
    """

    item: str
    arch_id: str
    arch: str
    artifact: Artifact | None
    expected: tuple[float, ...] | None = None
    input_seed: int = 0
    folded: bool = False


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """A group of networks measured together, their blocks interleaved.

    Attributes:
        id: names the journal on the board; letters, digits, dot, dash, underscore.
        items: what to measure.
        settings: how.
        sentinel: the reference network measured beside them, or None.
        seed: of the block order.

    Raises: ConfigError for a bad id, no items or two items of one name.
    """

    id: str
    items: tuple[JobItem, ...]
    settings: MeasureSettings
    sentinel: Artifact | None
    seed: int

    def __post_init__(self) -> None:
        """Refuse what no board could tell apart."""
        if not _JOB_ID.fullmatch(self.id):
            raise ConfigError(
                f"bad job id {self.id!r}", hint="letters, digits, '.', '-', '_', at most 128"
            )
        names = [entry.item for entry in self.items]
        if not names or len(set(names)) != len(names) or SENTINEL in names:
            raise ConfigError(f"job {self.id}: items need distinct names (and not {SENTINEL!r})")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object that `from_json` turns back into an equal job."""
        return {
            "id": self.id,
            "items": [_item_json(entry) for entry in self.items],
            "settings": self.settings.to_json(),
            "sentinel": _artifact_json(self.sentinel),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> MeasureJob:
        """Return the job that `to_json` wrote.

        Raises: DataError code "bad_job" when `payload` is not one.
        """
        try:
            return cls(
                id=payload["id"],
                items=tuple(_item_of(entry) for entry in payload["items"]),
                settings=MeasureSettings(**payload["settings"]),
                sentinel=_artifact_of(payload["sentinel"]),
                seed=payload["seed"],
            )
        except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as exc:
            raise DataError(
                f"a stored job cannot be read: {exc!r}",
                code="bad_job",
                hint="it was written by another version or is damaged; measure again",
            ) from exc


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Consecutive timed inferences and what the machine did meanwhile; unreadable is None.

    Attributes:
        samples_ns: duration of each inference, (n,) int64.
        cpu_ns: CPU time of the measuring process during the block, all threads.
        wall_ns: length of the block.
        nvcsw, nivcsw: voluntary and involuntary context switches.
        freq_khz: clock of the used core (the slowest of several).
        temperature_c: hottest sensor.
        steal_ns: time the hypervisor took.
        throttle: throttling events counted during the block.
        t_ns: when it was taken, on the board's monotonic clock.
    """

    samples_ns: NDArray[np.int64]
    cpu_ns: int | None
    wall_ns: int | None
    nvcsw: int | None = None
    nivcsw: int | None = None
    freq_khz: int | None = None
    temperature_c: float | None = None
    steal_ns: int | None = None
    throttle: int | None = None
    t_ns: int = 0

    def __eq__(self, other: object) -> bool:
        """Equal when every number is, samples included."""
        if not isinstance(other, Block):
            return NotImplemented
        return np.array_equal(self.samples_ns, other.samples_ns) and all(
            getattr(self, name) == getattr(other, name)
            for name in self.__slots__
            if name != "samples_ns"
        )

    __hash__ = None  # type: ignore[assignment]  # holds an array


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What came back for one network: blocks, a summary, or an error.

    Attributes:
        item: its name in the job.
        blocks: raw timings in the order they were taken.
        summary_latency_ms: latency of a device that knows no single samples (a table).
        load_ms, first_ms: loading the network, and its first inference.
        peak_memory_mib: peak memory of a process that loads and runs only this network.
        energy_mj, energy_net_mj: per inference, gross and without the idle power.
        energy_reason: why there is no energy, when it was asked for.
        error_code, error_message: why there is no complete result; None when there is.
        facts: the rest of what the device said (output, warm-up, why it stopped, ...).
    """

    item: str
    blocks: tuple[Block, ...] = ()
    summary_latency_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_memory_mib: float | None = None
    energy_mj: float | None = None
    energy_net_mj: float | None = None
    energy_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def was_tried(self) -> bool:
        """Whether this says anything about the network.

        Not when somebody cancelled the job, nor when it broke off before the first block: such an
        item was simply not measured, and must not use up one of its attempts.
        """
        if self.error_code == "truncated":
            return bool(self.blocks)
        return self.error_code != "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """Everything one job brought back; `items` in the order of the job's items.

    Attributes:
        sentinel: blocks of the reference network, oldest first.
        warmup_s, timed_s, load_s, sentinel_s: what the board was busy with.
        wall_s: board time from start to end.
        environment: the board's at the start, with "options" (what was really used: threads,
            cores, nice, providers), "end" (the environment afterwards) and "measured_at".
        outcome: how the job ended.
    """

    job_id: str
    items: tuple[ItemResult, ...]
    sentinel: tuple[Block, ...] = ()
    warmup_s: float = 0.0
    timed_s: float = 0.0
    load_s: float = 0.0
    sentinel_s: float = 0.0
    wall_s: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "done"

    @property
    def busy_s(self) -> float:
        """Board seconds spent in warm-up and timed inference, the sentinel's included."""
        return self.warmup_s + self.timed_s + self.sentinel_s


def _artifact_json(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    shapes = {name: list(shape) for name, shape in artifact.input_shapes.items()}
    inputs = [[name, list(shape), kind] for name, shape, kind in artifact.inputs]
    return {**asdict(artifact), "input_shapes": shapes, "inputs": inputs}


def _artifact_of(payload: Mapping[str, Any] | None) -> Artifact | None:
    if payload is None:
        return None
    shapes = {name: tuple(shape) for name, shape in payload["input_shapes"].items()}
    inputs = tuple((name, tuple(shape), kind) for name, shape, kind in payload.get("inputs", ()))
    return Artifact(**{**payload, "input_shapes": shapes, "inputs": inputs})


def _item_json(entry: JobItem) -> dict[str, Any]:
    return {
        "item": entry.item,
        "arch_id": entry.arch_id,
        "arch": entry.arch,
        "artifact": _artifact_json(entry.artifact),
        "expected": None if entry.expected is None else list(entry.expected),
        "input_seed": entry.input_seed,
        "folded": entry.folded,
    }


def _item_of(payload: Mapping[str, Any]) -> JobItem:
    expected = payload["expected"]
    return JobItem(
        item=payload["item"],
        arch_id=payload["arch_id"],
        arch=payload["arch"],
        artifact=_artifact_of(payload["artifact"]),
        expected=None if expected is None else tuple(float(value) for value in expected),
        input_seed=payload["input_seed"],
        folded=payload.get("folded", False),  # jobs of older versions do not have it
    )
