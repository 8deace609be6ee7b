"""The battery's own gauge: current times voltage, whole device, only while discharging.

Coarse and slow (a gauge averages over about a second, some over many). The kernel's unit is the
microampere; some phones say milliamperes, which cannot be told apart safely, so a current too small
for a running device is refused.
Source: kernel documentation, power/power_supply_class; Perfetto "battery counters" on charging.
"""

from __future__ import annotations

import glob
import os
from typing import Any, Callable

from device_agents import power
from device_agents.agent import facts

_PERIOD_S = 1.0
_PLAUSIBLE_UA = 10_000
"""A device awake enough to run this uses more than 10 mA."""


def charging(root: str) -> str | None:
    """Say why the battery's readings are not the device's consumption; None when they are."""
    pattern = os.path.join(root, "sys/class/power_supply/*")
    for folder in sorted(glob.glob(pattern)):
        kind, status = facts.read(folder, "type"), facts.read(folder, "status")
        if kind == "Battery" and status not in (None, "Discharging"):
            return "%s/status is %r" % (folder, status)
        if kind != "Battery" and facts.read(folder, "online") == "1":
            return "%s is plugged in (%s)" % (os.path.basename(folder), kind)
    return None


def refuse_charging(root: str, source: str) -> dict[str, Any] | None:
    """The answer for a device that is charging, None when it is not."""
    why = charging(root)
    if why is None:
        return None
    return power.answer(
        source=source,
        reason="charging",
        detail=why,
        hint="unplug it: reach the board over Wi-Fi (adb connect, ssh), or switch charging off",
    )


def _folder(root: str) -> str | None:
    for path in sorted(glob.glob(os.path.join(root, "sys/class/power_supply/*/type"))):
        folder = os.path.dirname(path)
        has = os.path.exists(folder + "/power_now") or os.path.exists(folder + "/current_now")
        if has and facts.read("", path) == "Battery":
            return folder
    return None


def describe(root: str, _options: dict[str, str]) -> dict[str, Any]:
    """Return the battery, unless there is none or it is charging."""
    folder = _folder(root)
    if folder is None:
        return power.answer()
    refused = refuse_charging(root, "battery")
    if refused is not None:
        return refused
    try:
        _read_uw(folder)
    except (OSError, power.SensorError) as exc:
        return power.unreadable("battery", exc, "run the agent as root, or over adb (shell user)")
    return power.answer(
        source="battery",
        scope="whole device, display and radios included",
        reason=None,
        detail=folder + ": the gauge's current and voltage, coarse",
        period_s=_PERIOD_S,
    )


def _read_uw(folder: str) -> float:
    if not os.path.exists(folder + "/current_now"):
        return abs(power.read_number(folder + "/power_now"))
    current_ua = abs(power.read_number(folder + "/current_now"))  # its sign is not agreed on
    if 0 < current_ua < _PLAUSIBLE_UA:
        message = "%s/current_now says %d: too little for microamperes" % (folder, current_ua)
        raise power.SensorError("sensor_failed", message)
    return current_ua * power.read_number(folder + "/voltage_now") / 1e6


def open_power(root: str, _options: dict[str, str]) -> Callable[[], float]:
    """Return a function that returns microwatts."""
    folder = _folder(root)
    if folder is None:
        raise power.SensorError("sensor_failed", "the battery is gone")

    def read_uw() -> float:
        why = charging(root)
        if why is not None:
            raise power.SensorError("charging", why)
        return _read_uw(folder)

    return read_uw
