"""The device profile: how a board behaves on a versioned reference set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hwnas_sdk.core.errors import ConfigError, MeasurementError
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import DeviceProfile, DeviceSpec, Measurement
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.predictors.references import REFERENCE_SETS
from hwnas_sdk.spaces import SearchSpace
from hwnas_sdk.workflows.beliefs import has_only_none_dead
from hwnas_sdk.workflows.measure import Target, architecture_target

N_PAIRS = 3
"""At most this many references are measured folded as well."""

ACTIVE = "active"
"""Name of the reference set that is chosen while it is measured (`workflows/active.py`)."""

MIN_VALID = 5
"""Fewer measured references than this say too little about a device."""

SETS: dict[str, tuple[str, ...]] = {
    "ours": ("ours-10",),
    "paper": ("paper-10",),
    "both": ("ours-10", "paper-10"),
}


def reference_set_name(references: str) -> str:
    """Versioned name of the reference set `references` (ours, paper, both, active).

    Raises: ConfigError for anything else.
    """
    if references == ACTIVE:
        return ACTIVE
    try:
        return "+".join(SETS[references])
    except KeyError:
        raise ConfigError(
            f"unknown reference set {references!r}", hint=f"one of {', '.join(SETS)}"
        ) from None


def reference_architectures(references: str) -> tuple[str, ...]:
    """Official strings of a reference set, each once, in measuring order."""
    names = reference_set_name(references).split("+")
    return tuple(dict.fromkeys(arch for name in names for arch in REFERENCE_SETS[name]))


def profile_of(
    measurements: Sequence[Measurement],
    architectures: Sequence[str],
    *,
    spec: DeviceSpec,
    settings: MeasureSettings,
    space: str,
    references: str,
    source: str,
    selection: Mapping[str, Any] | None = None,
) -> DeviceProfile:
    """Gather the measurements of a reference set (parallel to `architectures`) in a profile.

    References without a valid measurement are listed as missing: the models weigh what is there.
    Raises: MeasurementError when fewer than `MIN_VALID` references have one.
    """
    pairs = list(zip(architectures, measurements, strict=True))
    bad = [(arch, m) for arch, m in pairs if m.status == "invalid"]
    good = [(arch, m) for arch, m in pairs if m.status == "valid"]
    if len(good) < MIN_VALID:
        arch, measurement = bad[0]
        reasons = ", ".join(measurement.flags) or "no latency"
        raise MeasurementError(
            f"{spec.name}: {len(bad)} of {len(pairs)} reference networks have no valid "
            f"measurement; first {arch} ({reasons})",
            device_id=spec.id,
            arch_id=measurement.arch_id,
            code="profile_incomplete",
            hint="make the board quiet (see `hwnas doctor`) and profile it again",
            retryable=True,
        )
    architectures = [arch for arch, _ in good]
    measurements = [m for _, m in good]
    flags = sorted({flag for measurement in measurements for flag in measurement.flags})
    device = {
        key: value
        for key, value in asdict(spec).items()
        if key in ("family", "soc", "cores", "memory_mib", "machine", "runtimes", "power_source")
    }
    return DeviceProfile(
        device_id=spec.id,
        name=spec.name,
        space=space,
        reference_set=reference_set_name(references),
        architectures=tuple(architectures),
        latency_ms=tuple(float(m.latency_ms or 0.0) for m in measurements),
        ci95_ms=tuple(m.ci95_ms for m in measurements),
        energy_mj=tuple(m.energy_mj for m in measurements),
        peak_memory_mib=tuple(m.peak_memory_mib for m in measurements),
        origin=measurements[0].origin,
        runtime=settings.runtime,
        settings=settings.name,
        folded=False,
        measured_at=max(m.measured_at for m in measurements),
        device=device,
        environment=dict(measurements[0].environment),
        flags=tuple(flags),
        missing=tuple(arch for arch, _ in bad),
        source=source,
        selection=selection or {},
    )


def reference_targets(
    space: SearchSpace,
    archs: Sequence[str],
    *,
    cache: ArtifactCache,
    batch: int = 1,
    pairs: bool = True,
    prefix: str = "",
) -> tuple[list[Target], list[Target]]:
    """What a profile measures: the references unfolded, and some of them folded as well.

    The second list says what an empty edge costs (`beliefs.none_edge_ms`), which predictions of
    folded networks need; without `pairs` it is empty.
    """

    def targets(chosen: Sequence[str], *, folded: bool) -> list[Target]:
        return [
            architecture_target(
                space, space.decode(arch), cache=cache, folded=folded, batch=batch, prefix=prefix
            )
            for arch in chosen
        ]

    paired = [arch for arch in archs if pairs and has_only_none_dead(space.decode(arch))]
    return targets(archs, folded=False), targets(paired[:N_PAIRS], folded=True)
