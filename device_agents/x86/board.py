"""x86 machines: whether they throttled. What a family module has is said in agent/board.py."""

from __future__ import annotations

import glob
import os
import platform
from typing import Any

from device_agents.agent import facts, machine

FAMILY = "x86"


def matches(_root: str) -> bool:
    """Whether this is an x86 machine."""
    return platform.machine().lower() in machine.X86_NAMES


def describe(_root: str) -> dict[str, Any]:
    """Nothing beyond what is known of every board."""
    return {}


def throttle_count(root: str, cores: list[int]) -> int | None:
    """Thermal throttling events of `cores` and their packages since boot."""
    total = None
    for core in cores:
        pattern = "sys/devices/system/cpu/cpu%d/thermal_throttle/*_throttle_count" % core
        for path in glob.glob(os.path.join(root, pattern)):
            value = facts.read_int("", path)
            if value is not None:
                total = (total or 0) + value
    return total
