"""The device profile: how a board behaves on a versioned reference set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from hwnas_sdk.core.errors import ConfigError, MeasurementError
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import DeviceProfile, DeviceSpec, Measurement
from hwnas_sdk.predictors.references import REFERENCE_SETS
from hwnas_sdk.spaces import SearchSpace
from hwnas_sdk.workflows.files import write_text_atomic
from hwnas_sdk.workflows.measure import Measurer, Target, architecture_target

SCHEMA = 1
SETS: dict[str, tuple[str, ...]] = {
    "ours": ("ours-10",),
    "paper": ("paper-10",),
    "both": ("ours-10", "paper-10"),
}


def reference_set_name(references: str) -> str:
    """Versioned name of the reference set `references` (ours, paper, both).

    Raises: ConfigError for anything else.
    """
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


def reference_targets(
    space: SearchSpace, references: str, *, measurer: Measurer, cache: Any, prefix: str = ""
) -> list[Target]:
    """Unfolded targets of a reference set: public tables and transfer use unfolded networks."""
    batch = measurer.settings.batch
    return [
        architecture_target(
            space, space.decode(arch), cache=cache, folded=False, batch=batch, prefix=prefix
        )
        for arch in reference_architectures(references)
    ]


def profile_of(
    measurements: Sequence[Measurement],
    architectures: Sequence[str],
    *,
    spec: DeviceSpec,
    settings: MeasureSettings,
    space: str,
    references: str,
    source: str,
) -> DeviceProfile:
    """Gather the measurements of a reference set (parallel to `architectures`) in a profile.

    Raises: MeasurementError when a reference network has no valid measurement; a profile with a
        hole or a distrusted number would mislead every prediction built on it.
    """
    bad = [
        (arch, measurement)
        for arch, measurement in zip(architectures, measurements, strict=True)
        if measurement.status == "invalid"
    ]
    if bad:
        arch, measurement = bad[0]
        reasons = ", ".join(measurement.flags) or "no latency"
        raise MeasurementError(
            f"{spec.name}: {len(bad)} of {len(architectures)} reference networks have no valid "
            f"measurement; first {arch} ({reasons})",
            device_id=spec.id,
            arch_id=measurement.arch_id,
            code="profile_incomplete",
            hint="make the board quiet (see `hwnas doctor`) and profile it again",
            retryable=True,
        )
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
        source=source,
    )


def profile_to_mapping(profile: DeviceProfile) -> dict[str, Any]:
    """Readable form of a profile, one entry per reference network."""
    head = asdict(profile)
    columns = ("architectures", "latency_ms", "ci95_ms", "energy_mj", "peak_memory_mib")
    rows = zip(*(head.pop(column) for column in columns), strict=True)
    keys = ("arch", "latency_ms", "ci95_ms", "energy_mj", "peak_memory_mib")
    head["flags"] = list(profile.flags)
    return {
        "schema": SCHEMA,
        **head,
        "references": [dict(zip(keys, row, strict=True)) for row in rows],
    }


def profile_from_mapping(data: Mapping[str, Any], *, where: str) -> DeviceProfile:
    """Inverse of `profile_to_mapping`.

    Raises: ConfigError that names `where` and the wrong key.
    """
    values = dict(data)
    schema = values.pop("schema", None)
    if schema != SCHEMA:
        raise ConfigError(f"{where}: profile schema {schema!r} is not {SCHEMA}")
    try:
        references = values.pop("references")
        return DeviceProfile(
            architectures=tuple(row["arch"] for row in references),
            latency_ms=tuple(float(row["latency_ms"]) for row in references),
            ci95_ms=tuple(row.get("ci95_ms") for row in references),
            energy_mj=tuple(row.get("energy_mj") for row in references),
            peak_memory_mib=tuple(row.get("peak_memory_mib") for row in references),
            **{**values, "flags": tuple(values.get("flags", ()))},
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{where}: not a device profile: {exc}") from None


def save_profile(profile: DeviceProfile, path: Path) -> None:
    """Write a profile as YAML, all or nothing."""
    text = yaml.safe_dump(profile_to_mapping(profile), sort_keys=False, width=100)
    write_text_atomic(path, text)


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile.

    Raises: ConfigError when the file is missing, not YAML or not a profile.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read profile {path}: {exc.strerror}") from None
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not YAML: {str(exc).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: not a device profile")
    return profile_from_mapping(data, where=str(path))
