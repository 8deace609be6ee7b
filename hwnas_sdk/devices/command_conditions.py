"""What an Android phone says of heat, battery, screen and radio, and what follows from it.

Strict: a service that answers something else gives None and its text is kept under "raw". Sources:
the dumps of `dumpsys` and `settings`; real ones are in the tests' fixtures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hwnas_sdk.core.errors import DeviceError

DUMPS: Final[Mapping[str, str]] = {
    "thermal": "dumpsys thermalservice",
    "battery": "dumpsys battery",
    "power": "dumpsys power | grep -E 'mWakefulness=|Display Power: state='",
    "airplane": "settings get global airplane_mode_on",
}
"""Name -> command; 50 to 100 ms each on a phone."""

BATTERY_MIN_PCT: Final = 30
_RAW_CHARS: Final = 2000
_TEMPERATURE: Final = re.compile(
    r"Temperature\{mValue=(-?[0-9.]+|NaN), mType=(-?\d+), mName=([^,]*), mStatus=(\d+)\}"
)
_CPU, _SKIN = 0, 3
_THROTTLING_FROM: Final = 1
"""Android's status 0 is none; 1 (light) and more slow the processor down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AndroidConditions:
    """One look at a phone; None where it does not say.

    Attributes:
        thermal_status: 0 none to 6 shutdown.
        cpu_c, skin_c: hottest sensor of the kind, as the hardware reports it now.
        battery_pct, battery_c, charging: `charging` is whether any supply is connected.
        screen_on, airplane_mode: as said.
        raw: text of a service that could not be understood.
    """

    thermal_status: int | None = None
    cpu_c: float | None = None
    skin_c: float | None = None
    battery_pct: float | None = None
    battery_c: float | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    airplane_mode: bool | None = None
    raw: Mapping[str, str] = field(default_factory=dict)

    @property
    def throttles(self) -> bool:
        """Whether the phone says that it slows down."""
        return (self.thermal_status or 0) >= _THROTTLING_FROM

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        names = [name for name in self.__slots__ if name != "raw" or self.raw]
        return {name: getattr(self, name) for name in names}


def read_conditions(dumps: Mapping[str, str]) -> AndroidConditions:
    """Understand the answers to `DUMPS`."""
    found: dict[str, Any] = {}
    raw: dict[str, str] = {}
    readers = {
        "thermal": _thermal,
        "battery": _battery,
        "power": _power,
        "airplane": _airplane,
    }
    for name, reader in readers.items():
        text = dumps.get(name, "")
        try:
            found |= reader(text)
        except (ValueError, KeyError):
            if text.strip():
                raw[name] = text[:_RAW_CHARS]
    return AndroidConditions(**found, raw=raw)


def check_conditions(conditions: AndroidConditions | None, *, device_id: str) -> None:
    """Refuse a phone that would give wrong numbers.

    Raises: DeviceError "battery_low" or "too_hot", both retryable.
    """
    if conditions is None:
        return
    level = conditions.battery_pct
    if level is not None and level <= BATTERY_MIN_PCT:
        raise DeviceError(
            f"the battery of {device_id!r} is at {level:.0f} %, phones save power below "
            f"{BATTERY_MIN_PCT} %",
            device_id=device_id,
            code="battery_low",
            hint="charge it, then try again",
            retryable=True,
        )
    if conditions.throttles:
        raise DeviceError(
            f"{device_id!r} is too hot: its thermal status is {conditions.thermal_status}, not 0",
            device_id=device_id,
            code="too_hot",
            hint="let it cool down (screen off, out of its case), then try again",
            retryable=True,
        )


def _thermal(text: str) -> dict[str, Any]:
    status = re.search(r"^Thermal Status: (\d+)\s*$", text, re.MULTILINE)
    if status is None:
        raise ValueError("no thermal status")
    # The cached values before this heading can be much older than the status.
    _, found, current = text.partition("Current temperatures from HAL:")
    by_kind: dict[int, list[float]] = {}
    for value, kind, _, _ in _TEMPERATURE.findall(current if found else ""):
        celsius = float(value)
        if 0.0 < celsius < 150.0:
            by_kind.setdefault(int(kind), []).append(celsius)
    return {
        "thermal_status": int(status.group(1)),
        "cpu_c": max(by_kind.get(_CPU, []), default=None),
        "skin_c": max(by_kind.get(_SKIN, []), default=None),
    }


def _battery(text: str) -> dict[str, Any]:
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.strip().partition(":")
        if colon:
            pairs.setdefault(key, value.strip())  # vendors repeat keys further down
    supplies = [pairs[key] for key in pairs if key.endswith(" powered")]
    if not supplies or not set(supplies) <= {"true", "false"}:
        raise ValueError("no power supplies")
    tenths = int(pairs["temperature"])
    has_battery = pairs.get("present") == "true"
    return {
        "battery_pct": 100.0 * int(pairs["level"]) / int(pairs["scale"]) if has_battery else None,
        "battery_c": tenths / 10.0 if has_battery and tenths else None,
        "charging": "true" in supplies,
    }


def _power(text: str) -> dict[str, Any]:
    display = re.search(r"Display Power: state=(\w+)", text)
    if display:
        return {"screen_on": display.group(1) == "ON"}
    awake = re.search(r"mWakefulness=(\w+)", text)
    if awake is None:
        raise ValueError("no display state")
    return {"screen_on": awake.group(1) == "Awake"}


def _airplane(text: str) -> dict[str, Any]:
    if text.strip() not in {"0", "1"}:
        raise ValueError("no airplane mode")
    return {"airplane_mode": text.strip() == "1"}
