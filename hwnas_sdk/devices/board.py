"""From an agent's probe to a `DeviceSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwnas_sdk.core.types import DeviceSpec, MachineKind

_MACHINES: Final[Mapping[str, MachineKind]] = {
    "bare": "bare",
    "virtualised": "virtualised",
    "emulated": "emulated",
}

_NOT_FACTS: Final = ("hostname_hash", "fingerprint")
"""Who a board is does not belong beside every number."""


def spec_from_probe(
    probe: Mapping[str, Any], hello: Mapping[str, Any], *, name: str, uri: str
) -> DeviceSpec:
    """Return what the board called `name` is, from its answers to "probe" and "hello".

    Raises: KeyError, TypeError, ValueError or AttributeError on an incomplete answer.
    """
    device, runtimes = probe["device"], probe["runtimes"]
    power = probe.get("power") or {}
    fingerprint = str(device["fingerprint"])
    return DeviceSpec(
        id=f"{name}@{fingerprint[:8]}",
        name=name,
        uri=uri,
        family=str(device["family"]),
        soc=str(device["soc"]),
        cores=int(device["cores"]),
        memory_mib=int(device["memory_mib"]),
        machine=_MACHINES[device["machine"]],
        runtimes={
            key: str(value["version"]) for key, value in runtimes.items() if "version" in value
        },
        power_source=power.get("source"),
        power_reason=power.get("reason"),
        details={
            "device": device,
            "runtimes": runtimes,
            "power": power,
            "quiet": probe.get("quiet") or {},
            "agent_version": hello.get("agent_version"),
            "agent_sha": hello.get("agent_sha"),
            "python": hello.get("python"),
        },
    )


def board_facts(spec: DeviceSpec) -> dict[str, Any]:
    """What a board runs, for each record: an update changes it under the same name.

    The store has one row per device, always the newest description; what was true of an older
    measurement must lie beside that measurement.
    """
    device = spec.details.get("device")
    facts = dict(device) if isinstance(device, Mapping) else {}
    for key in _NOT_FACTS:
        facts.pop(key, None)
    facts["runtimes"] = dict(spec.runtimes)
    for key in ("agent_version", "agent_sha", "python"):
        facts[key] = spec.details.get(key)
    return facts
