"""The Raspberry Pi 5's power management chip: ``vcgencmd pmic_read_adc``, internal rails only.

Each rail has a current line and a voltage line; the sum over rails leaves out the USB ports, 5 V
peripherals and the converters' losses, so it is less than what the board draws.
Source: Raspberry Pi documentation, vcgencmd; the ADC's own update rate is not documented.
"""

from __future__ import annotations

import re
from typing import Any, Callable

from device_agents import power
from device_agents.agent import facts

_LINE = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)([AV])$")
_NO_CURRENT = ("EXT5V", "BATT")


def parse_w(text: str) -> float:
    """Sum of the rails' powers. Raises: SensorError "parse_failed"."""
    values = {"A": {}, "V": {}}  # type: dict[str, dict[str, float]]
    for line in text.splitlines():
        found = _LINE.match(line.strip())
        if found is None or found.group(2) != found.group(4):
            raise power.SensorError("parse_failed", "pmic_read_adc says %r" % line[:80])
        values[found.group(2)][found.group(1)] = float(found.group(3))
    rails = set(values["V"]) - set(_NO_CURRENT)
    if not rails or rails != set(values["A"]):
        odd = ", ".join(sorted(rails ^ set(values["A"]))) or "nothing"
        raise power.SensorError("parse_failed", "pmic_read_adc: no current and voltage of " + odd)
    return sum(values["A"][rail] * values["V"][rail] for rail in rails)


def _is_pi5(root: str) -> bool:
    return "bcm2712" in (facts.read(root, "proc/device-tree/compatible") or "")


def _read_uw(root: str) -> float:
    text = facts.tool(root, "vcgencmd", "pmic_read_adc")
    if text is None:
        message = "vcgencmd pmic_read_adc fails: is this user in the group video?"
        raise power.SensorError("sensor_permission", message)
    return parse_w(text) * 1e6


def describe(root: str, _options: dict[str, str]) -> dict[str, Any]:
    """Return the rails of a Pi 5."""
    if not _is_pi5(root):
        return power.answer()
    try:
        _read_uw(root)
    except power.SensorError as exc:
        found = power.unreadable("pmic", exc, "")
        found["hint"] = "sudo usermod -aG video $USER, then log in again; or run the agent as root"
        return found
    return power.answer(
        source="pmic",
        scope="Pi 5 PMIC: internal rails only, without USB, 5 V peripherals and converter losses",
        reason=None,
        detail="vcgencmd pmic_read_adc",
        period_s=0.1,
    )


def open_power(root: str, _options: dict[str, str]) -> Callable[[], float]:
    """Return a function that returns microwatts."""
    return lambda: _read_uw(root)
