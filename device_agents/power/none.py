"""No energy source: says so, never guesses."""

from __future__ import annotations

import os
from typing import Any

from device_agents import power


def describe(root: str, _options: dict[str, str]) -> dict[str, Any]:
    """Return which places were looked at."""
    return power.answer(
        detail="no RAPL counter below %s, no INA hwmon sensor, ODPM rail, Pi 5 PMIC or battery"
        % os.path.join(root, "sys/class/powercap"),
        hint="virtual machines and most containers hide RAPL: run the agent on the bare machine "
        "(kernel module intel_rapl_common, AMD too); on boards attach an INA226 and name it",
    )
