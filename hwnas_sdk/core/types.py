"""The nouns everything else is written in. Frozen; units are in the names; missing is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hwnas_sdk.core.flags import Status, status_of

Origin = Literal["measured", "simulated", "imported", "predicted"]
MachineKind = Literal["bare", "virtualised", "emulated"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A member of a search space: one choice per decision."""

    space: str
    genotype: tuple[int, ...]

    @property
    def id(self) -> str:
        """Readable identity, e.g. ``nasbench201:3-1-0-4-2-3``."""
        return f"{self.space}:{'-'.join(str(gene) for gene in self.genotype)}"

    @classmethod
    def of_id(cls, arch_id: str) -> Architecture:
        """Inverse of `id`. Raises: ValueError for anything else (a user's own file, say)."""
        space, _, genes = arch_id.partition(":")
        return cls(space, tuple(int(gene) for gene in genes.split("-")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One deployable file, named by its content.

    Attributes:
        sha256: of the file's bytes.
        format: "onnx", or "tvm" (a shared library compiled for `target`).
        arch_id: `Architecture.id`, or ``file:<sha12>`` for a user's own model.
        folded: whether it is the canonical live graph (True) or executes every operator (False).
        producer: what wrote it (exporter, opset, weights).
        size_bytes: length of the file.
        path: where the file lies on this host.
        input_shapes: name -> full static shape of each input.
        target: what it was compiled for (canonical JSON); empty for files that run anywhere.
        inputs: (name, shape, numpy type) of each input in the order it is fed, for files that
            cannot be asked for them (format "tvm"); else empty.
        tuned: for a compiled file, whether every layer worth tuning was tuned; else None.
    """

    sha256: str
    format: str
    arch_id: str
    folded: bool
    producer: str
    size_bytes: int
    path: str
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    target: str = ""
    inputs: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    tuned: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One network on one device, once. `None` means not measured, never 0.

    `latency_ms` is the median over blocks of the block median; `latency_p90_ms` is None below
    64 samples. `ci95_ms` is the half-width of the 95 % confidence interval of `latency_ms`.
    """

    arch_id: str
    artifact_sha256: str
    device_id: str
    settings_id: str
    origin: Origin
    latency_ms: float | None
    latency_p90_ms: float | None = None
    latency_iqr_ms: float | None = None
    ci95_ms: float | None = None
    first_ms: float | None = None
    load_ms: float | None = None
    energy_mj: float | None = None
    energy_net_mj: float | None = None
    energy_reason: str | None = None
    peak_memory_mib: float | None = None
    n_samples: int = 0
    flags: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    measured_at: str = ""
    run_id: str = ""
    item: str = ""
    attempt: int = 1

    @property
    def status(self) -> Status:
        """Derived from the flags; a record without a latency is invalid."""
        return "invalid" if self.latency_ms is None else status_of(self.flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """What a device is (not how fast it is)."""

    id: str
    name: str
    uri: str
    family: str
    soc: str
    cores: int
    memory_mib: int
    machine: MachineKind
    runtimes: Mapping[str, str] = field(default_factory=dict)
    power_source: str | None = None
    power_reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """How a device behaves: its latencies (and energies) on a versioned reference set.

    Sequences run parallel to `architectures` (official strings). `settings` and `environment` say
    how it was measured; two profiles of different `reference_set` cannot be compared. `missing` are
    references that got no valid measurement. `selection` says how precise an active profile became
    and why it ended; it is empty for a fixed reference set.
    """

    device_id: str
    name: str
    space: str
    reference_set: str
    architectures: tuple[str, ...]
    latency_ms: tuple[float, ...]
    ci95_ms: tuple[float | None, ...]
    energy_mj: tuple[float | None, ...]
    peak_memory_mib: tuple[float | None, ...]
    origin: Origin
    runtime: str
    settings: str
    folded: bool
    measured_at: str
    device: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    source: str = ""
    selection: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """Something to minimise."""

    name: str
    unit: str

    @property
    def key(self) -> str:
        """Column name: the name with its unit, e.g. ``latency_ms``."""
        return f"{self.name}_{self.unit}"


OBJECTIVES: dict[str, Objective] = {
    "error": Objective("error", "pct"),
    "latency": Objective("latency", "ms"),
    "energy": Objective("energy", "mj"),
    "memory": Objective("memory", "mib"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network a search proposes, with what is believed about it.

    `values` and `sd` map objective keys (``error_pct``, ``latency_ms``, ...) to numbers; `origin`
    says where each value came from.
    """

    architecture: Architecture
    arch: str
    values: Mapping[str, float]
    sd: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """What a search returns: its candidates, fastest first.

    `folded` says which form of the networks the predictions are for.
    """

    device_id: str
    space: str
    folded: bool
    objectives: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    method: str
    seed: int
    n_evaluations: int
    duration_s: float
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCandidate:
    """A candidate next to its measurement; `measured_ms` is None when no valid one was obtained."""

    arch: str
    arch_id: str
    error_pct: float
    predicted_ms: float
    predicted_sd_ms: float | None
    measured_ms: float | None
    ci95_ms: float | None
    peak_memory_mib: float | None
    energy_mj: float | None
    flags: tuple[str, ...]
    on_predicted_front: bool
    on_measured_front: bool
    predicted_mj: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Prediction against measurement for one front.

    Rank correlations and the percentage error are over the candidates with a valid measurement,
    None where fewer than two have one. Both hypervolumes use the same box, `hypervolume_reference`
    (error_pct, latency_ms), after scaling by it, so they lie in [0, 1].

    Whether a candidate is on a front is judged by all `objectives`; one that was not measured for
    every valid candidate (energy without a sensor) is left out of them. The energy figures are as
    those of latency, None without energies. `origin` is where the device's numbers come from.
    """

    device_id: str
    run_id: str
    round: int
    candidates: tuple[VerifiedCandidate, ...]
    spearman: float | None
    kendall: float | None
    mape_pct: float | None
    hypervolume_predicted: float
    hypervolume_measured: float
    hypervolume_reference: tuple[float, float]
    dominated_after_measuring: tuple[str, ...]
    n_tied_pairs: int
    objectives: tuple[str, ...] = ("error", "latency")
    energy_spearman: float | None = None
    energy_mape_pct: float | None = None
    origin: Origin = "measured"

    @property
    def n_measured(self) -> int:
        """Candidates with a valid measurement."""
        return sum(row.measured_ms is not None for row in self.candidates)
