"""Any Linux board: what the device tree, the kernel and the cores' own numbers say."""

from __future__ import annotations

import platform
from typing import Any

from device_agents.agent import facts
from device_agents.linux import parse

FAMILY = "linux"


def matches(_root: str) -> bool:
    """Every board that is nothing more special."""
    return True


def describe(root: str) -> dict[str, Any]:
    """Model, chip and cores; the family's name is the architecture's."""
    found = {
        "family": platform.machine() or FAMILY,
        "model": facts.read(root, "proc/device-tree/model"),
    }  # type: dict[str, Any]
    cores = parse.cores(facts.read(root, "proc/cpuinfo") or "")
    chip = [facts.read(root, "sys/devices/soc0/" + name) for name in ("family", "soc_id")]
    soc = " ".join(part for part in chip if part)
    named = "%s (%s)" % (soc, cores) if soc and cores else soc or cores
    if named:
        found["soc"] = named
    return found
