"""Raspberry Pi. What a family module has is said in agent/board.py; notes in the README."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable

from device_agents.agent import facts
from device_agents.raspberry_pi import parse

FAMILY = "raspberry_pi"
_COMPATIBLE = "proc/device-tree/compatible"


def matches(root: str) -> bool:
    """Whether the device tree says so."""
    return "raspberrypi," in (facts.read(root, _COMPATIBLE) or "")


def describe(root: str) -> dict[str, Any]:
    """Model, chip, firmware and boot loader."""
    chip = re.search(r"brcm,(bcm\d+)", facts.read(root, _COMPATIBLE) or "")
    found = {"model": facts.read(root, "proc/device-tree/model")}  # type: dict[str, Any]
    if chip:
        found["soc"] = chip.group(1).upper()
    _ask(root, found, "firmware", parse.version, "version")
    _ask(root, found, "bootloader", parse.version, "bootloader_version")
    return found


def environment(root: str) -> dict[str, Any]:
    """The firmware's view of clock and temperature."""
    found = {}  # type: dict[str, Any]
    _ask(root, found, "arm_clock_hz", parse.clock_hz, "measure_clock", "arm")
    _ask(root, found, "core_temperature_c", parse.temperature_c, "measure_temp")
    return found


def throttle_state(root: str) -> dict[str, Any] | None:
    """The throttle bits; without vcgencmd those of sysfs, else the supply voltage's alarm.

    sysfs says 0 on some kernels whatever happens (raspberrypi/linux#2367), so it comes second and
    the answer says where it is from.
    """
    text = facts.tool(root, "vcgencmd", "get_throttled")
    source = "vcgencmd"
    if text is None:
        source = "sysfs"
        pattern = "sys/devices/platform/soc/soc:firmware/get_throttled"
        text = facts.read(root, pattern)
    if text is None:
        return _alarm(root)
    state = {"now": [], "sticky": [], "raw": text, "source": source}  # type: dict[str, Any]
    try:
        state["now"], state["sticky"] = parse.throttled(text)
    except ValueError:
        state["error"] = "parse_failed"
    return state


def _alarm(root: str) -> dict[str, Any] | None:
    for name in sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/name"))):
        if facts.read("", name) == "rpi_volt":
            text = facts.read(os.path.dirname(name), "in0_lcrit_alarm")
            now = ["under_voltage"] if text == "1" else []
            state = {"now": now, "sticky": [], "raw": text, "source": "rpi_volt"}
            return state if text in ("0", "1") else {**state, "error": "parse_failed"}
    return None


def _ask(
    root: str, into: dict[str, Any], key: str, parser: Callable[[str], Any], *command: str
) -> None:
    """Add what vcgencmd says; a text that is not understood is kept as ``KEY_raw``."""
    text = facts.tool(root, "vcgencmd", *command)
    into[key] = None
    if text is None:
        return
    try:
        into[key] = parser(text)
    except ValueError:
        into[key + "_error"], into[key + "_raw"] = "parse_failed", text[:500]
