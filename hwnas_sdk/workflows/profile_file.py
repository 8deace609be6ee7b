"""Profiles as YAML files: what the project ships and what users exchange.

pydantic stands at this edge only: it gives errors that name the key, and the JSON Schema in
``profiles/`` (tools/gen_profile_schema.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.types import DeviceProfile, Origin

SCHEMA: Literal[1] = 1


class ReferenceEntry(BaseModel):
    """One reference network; units are in the names, null means not measured."""

    model_config = ConfigDict(extra="forbid")

    arch: str = Field(description="official string of the architecture")
    latency_ms: float = Field(gt=0)
    ci95_ms: float | None = Field(description="half-width of the 95 % confidence interval")
    energy_mj: float | None
    peak_memory_mib: float | None = Field(description="peak RSS, runtime included")


class ProfileFile(BaseModel):
    """A device profile: how a device behaves on a versioned reference set."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    device_id: str
    name: str
    space: str
    reference_set: str = Field(description="profiles of different reference sets do not compare")
    origin: Origin = Field(
        description="measured (by us, on the device), simulated, imported (from somebody's table) "
        "or predicted"
    )
    runtime: str
    settings: str
    folded: bool
    measured_at: str
    device: dict[str, Any]
    environment: dict[str, Any]
    flags: list[str]
    missing: list[str] = Field(
        default_factory=list, description="references without a valid measurement"
    )
    source: str = Field(
        min_length=1,
        description="where the numbers come from: the run, or table, and who measured it on what",
    )
    selection: dict[str, Any] = Field(
        default_factory=dict,
        description="of an active profile: precision wanted and reached, and why it ended",
    )
    references: list[ReferenceEntry] = Field(min_length=1)


def profile_to_mapping(profile: DeviceProfile) -> dict[str, Any]:
    """Readable form of a profile, one entry per reference network."""
    head = asdict(profile)
    columns = ("architectures", "latency_ms", "ci95_ms", "energy_mj", "peak_memory_mib")
    rows = zip(*(head.pop(column) for column in columns), strict=True)
    keys = ("arch", "latency_ms", "ci95_ms", "energy_mj", "peak_memory_mib")
    head["flags"], head["missing"] = list(profile.flags), list(profile.missing)
    references = [dict(zip(keys, row, strict=True)) for row in rows]
    return {"schema": SCHEMA, **head, "references": references}


def profile_from_mapping(data: Mapping[str, Any], *, where: str) -> DeviceProfile:
    """Inverse of `profile_to_mapping`.

    Raises: ConfigError that names `where` and the wrong key.
    """
    try:
        content = ProfileFile.model_validate(dict(data))
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where}: not a device profile: {key}: {first['msg']}",
            code="bad_profile",
            hint="profiles/profile.schema.json describes the file",
        ) from None
    rows = content.references
    head = content.model_dump(exclude={"schema_version", "references", "flags", "missing"})
    return DeviceProfile(
        architectures=tuple(row.arch for row in rows),
        latency_ms=tuple(row.latency_ms for row in rows),
        ci95_ms=tuple(row.ci95_ms for row in rows),
        energy_mj=tuple(row.energy_mj for row in rows),
        peak_memory_mib=tuple(row.peak_memory_mib for row in rows),
        flags=tuple(content.flags),
        missing=tuple(content.missing),
        **head,
    )


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
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not YAML: {str(exc).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: not a device profile", code="bad_profile")
    return profile_from_mapping(data, where=str(path))
