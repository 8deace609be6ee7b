"""What a report is made of. Frozen, plain values only: its builder has already read the store.

Every number on the page comes from here with its unit in its name; `None` means not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hwnas_sdk.core.types import DeviceProfile, Measurement, Origin, Verdict

ReportKind = Literal["quickstart", "loop", "verify", "profile", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundData:
    """One verified front and what to call it, e.g. ``Round 2``."""

    verdict: Verdict
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileData:
    """Latencies of the reference set; sequences run parallel to `architectures` (official strings).

    A `latency_ms` of None is a reference without a valid measurement: it is listed as such.
    """

    reference_set: str
    architectures: tuple[str, ...]
    latency_ms: tuple[float | None, ...]
    ci95_ms: tuple[float | None, ...]
    origin: Origin = "measured"
    name: str = ""
    folded: bool = False
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sequences that do not run in parallel."""
        n = len(self.architectures)
        if len(self.latency_ms) != n or len(self.ci95_ms) != n:
            raise ValueError(f"profile {self.name!r}: {n} architectures need as many latencies")

    @classmethod
    def from_profile(cls, profile: DeviceProfile) -> ProfileData:
        """The part of a `DeviceProfile` that the page shows; missing references come last."""
        return cls(
            reference_set=profile.reference_set,
            architectures=(*profile.architectures, *profile.missing),
            latency_ms=(*profile.latency_ms, *(None for _ in profile.missing)),
            ci95_ms=(*profile.ci95_ms, *(None for _ in profile.missing)),
            origin=profile.origin,
            name=profile.name,
            folded=profile.folded,
            flags=profile.flags,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPoint:
    """One block of the sentinel: `t_s` seconds after the run began, during job `job`."""

    t_s: float
    sentinel_ms: float
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervolumePoint:
    """Hypervolumes after one round, scaled to [0, 1] in one box that all rounds share.

    `measured` is that of the round's own candidates, `measured_so_far` of everything
    verified, which are `n_so_far` networks.
    """

    label: str
    predicted: float | None
    measured: float | None
    measured_so_far: float | None = None
    n_so_far: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """One network of a ``measure`` report; `blocks_ms`: single inferences, block by block."""

    name: str
    measurement: Measurement
    blocks_ms: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything one page shows.

    Attributes:
        title: heading of the page.
        run_id: identity of the run in the store.
        kind: which workflow made it; decides which answer the page opens with.
        command: what to type to get this run again, one command per line.
        sdk_version: of the package that wrote it.
        created_at: ISO 8601; the only time stamp on the page.
        device: `DeviceSpec` as a mapping (name, uri, soc, cores, memory_mib, machine, ...).
        environment: of the measurements (governor, clocks, runtime versions, ...).
        settings: `MeasureSettings.to_json()`.
        seed: root seed of the run.
        rounds: verified fronts, oldest first.
        measurement_origin: what "measured" stands for: a replayed table is ``imported``.
        profile: the device's reference measurements, when the run has them.
        drift: sentinel blocks, oldest first; `drift_baseline_ms` is what they are compared with
            (None: the first of them).
        models: networks of a ``measure`` report.
        provenance: quantity -> how its numbers are known, e.g. ``error_pct`` -> "predicted by ...".
        flags_explained: flag -> meaning, in addition to `core.flags`.
        artifacts: architecture (official string) -> sha256 of the file that was measured.
        hypervolume: one entry per round; empty takes them from the verdicts.
        energy_reason: why energies are missing ("" falls back to the device's `power_reason`).
        notes: anything the reader should know, shown near the top.
    """

    title: str
    run_id: str
    kind: ReportKind
    command: str
    sdk_version: str
    created_at: str
    device: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    rounds: tuple[RoundData, ...] = ()
    measurement_origin: Origin = "measured"
    profile: ProfileData | None = None
    drift: tuple[DriftPoint, ...] = ()
    drift_baseline_ms: float | None = None
    models: tuple[MeasuredModel, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    flags_explained: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    hypervolume: tuple[HypervolumePoint, ...] = ()
    energy_reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSide:
    """One of the two runs of a comparison."""

    label: str
    run_id: str
    created_at: str
    sdk_version: str
    device: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPair:
    """One architecture in both runs; a side without a valid measurement is None."""

    arch: str
    a_ms: float | None
    b_ms: float | None
    a_ci95_ms: float | None = None
    b_ci95_ms: float | None = None
    a_flags: tuple[str, ...] = ()
    b_flags: tuple[str, ...] = ()

    @property
    def change_pct(self) -> float | None:
        """How much slower (+) or faster (-) the second run is; None unless both are measured."""
        if not self.a_ms or self.b_ms is None:
            return None
        return 100.0 * (self.b_ms / self.a_ms - 1.0)

    @property
    def is_clear(self) -> bool:
        """Whether the change is larger than both 95 % confidence intervals together."""
        if self.a_ms is None or self.b_ms is None:
            return False
        return abs(self.b_ms - self.a_ms) > (self.a_ci95_ms or 0.0) + (self.b_ci95_ms or 0.0)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not the same in two runs; None is "not recorded"."""

    what: str
    before: str | None
    after: str | None
