"""What Android's tools print. A text that is not what it should be raises ValueError."""

from __future__ import annotations

import re
from typing import Any

THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""PowerManager.THERMAL_STATUS_*; anything but none may slow the device down."""


def properties(text: str) -> dict[str, str]:
    """Of ``getprop``: lines of ``[name]: [value]``; a value may go over several lines."""
    found = dict(re.findall(r"^\[([^\]\n]+)\]: \[(.*?)\]$", text, re.MULTILINE | re.DOTALL))
    if not found:
        raise ValueError(text)
    return found


def thermal_status(text: str) -> str:
    """Name of ``Thermal Status: N`` in ``dumpsys thermalservice``."""
    found = re.findall(r"^Thermal Status: (\d)$", text, re.MULTILINE)
    if len(found) != 1 or int(found[0]) >= len(THERMAL):
        raise ValueError(text)
    return THERMAL[int(found[0])]


def battery(text: str) -> dict[str, Any]:
    """{level_pct, charging, temperature_c} of ``dumpsys battery``.

    The event log some vendors append repeats the names; only the state's own lines count.
    """
    head, _, rest = text.partition("Current Battery Service state:\n")
    own = re.match(r"(?:[ \t].*\n)*", rest + "\n")
    if head.strip() or not rest or own is None:
        raise ValueError(text)
    lines = dict(re.findall(r"^ +([\w ]+): (\S+)$", own.group(), re.MULTILINE))
    powered = [lines.get(kind + " powered") for kind in ("AC", "USB", "Wireless", "Dock")]
    try:
        level = 100 * int(lines["level"]) // int(lines["scale"])
        charging = "true" in powered or int(lines["status"]) == 2
        temperature_c = int(lines["temperature"]) / 10.0
    except (LookupError, ValueError, ZeroDivisionError):
        raise ValueError(text) from None
    return {"level_pct": level, "charging": charging, "temperature_c": temperature_c}


def wakefulness(text: str) -> str:
    """Awake, Asleep, Dozing or Dreaming, of ``dumpsys power``."""
    found = re.search(r"^\s*mWakefulness=(Awake|Asleep|Dozing|Dreaming)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(text)
    return found.group(1)
