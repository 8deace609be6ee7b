"""RAPL: the package's own energy counters through /sys/class/powercap (Intel and AMD).

A package zone already contains its core and uncore zones, so these are not added; DRAM is not
contained in it and is. "psys" (the platform) overlaps both and is left out, and so is the second
access path to the same counters, intel-rapl-mmio.
Source: kernel documentation, power/powercap.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any, Callable

from device_agents import power

_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?$")


def _read(path: str) -> str:
    with open(path, encoding="ascii") as stream:
        return stream.read().strip()


def _zones(root: str) -> list[tuple[str, str]]:
    """(name, folder) of the zones whose energies add up."""
    base = os.path.join(root, "sys/class/powercap")
    try:
        entries = sorted(name for name in os.listdir(base) if _ZONE.match(name))
    except OSError:
        return []
    zones = []
    for entry in entries:
        folder = os.path.join(base, entry)
        try:
            name = _read(os.path.join(folder, "name"))
        except OSError:
            continue
        if name.startswith("package") or name == "dram":
            zones.append((name, folder))
    return zones


def describe(root: str, _options: dict[str, str]) -> dict[str, Any]:
    """Return what can be read: reason None, "no_sensor" or "sensor_permission" (file and fix)."""
    answer = power.answer()
    zones = _zones(root)
    if not any(name.startswith("package") for name, _ in zones):
        return answer
    answer["source"] = "rapl"
    answer["scope"] = "+".join(sorted({name.split("-")[0] for name, _ in zones}, reverse=True))
    for _, folder in zones:
        path = os.path.join(folder, "energy_uj")
        try:
            int(_read(path))
            int(_read(os.path.join(folder, "max_energy_range_uj")))
        except (OSError, ValueError) as exc:
            denied = isinstance(exc, OSError) and exc.errno in (errno.EACCES, errno.EPERM)
            if not denied:
                answer.update(source=None, scope=None, detail="%s: %s" % (path, exc))
                return answer
            answer["reason"] = "sensor_permission"
            answer["detail"] = path + " is readable by root only (CVE-2020-8694)"
            answer["hint"] = (
                "run the agent as root, or allow it until the next boot: sudo chmod a+r %s "
                "(for good: a udev rule or sysfs.conf entry for the same file)" % path
            )
            return answer
    answer.update(reason=None, period_s=0.001)
    answer["detail"] = ", ".join(name for name, _ in zones) + "; all processes together"
    return answer


def open_counter(root: str, _options: dict[str, str]) -> Callable[[], int]:
    """Return a function that returns microjoules since now, over all zones.

    A zone's counter starts again at 0 after ``max_energy_range_uj``; read it at least once per
    period (minutes even at 500 W).
    """
    paths, spans, last = [], [], []
    for _, folder in _zones(root):
        paths.append(os.path.join(folder, "energy_uj"))
        spans.append(int(_read(os.path.join(folder, "max_energy_range_uj"))))
        last.append(int(_read(paths[-1])))
    total = [0]

    def read_uj() -> int:
        for index, path in enumerate(paths):
            now = int(_read(path))
            delta = now - last[index]
            # The counter holds values 0..max, so a full turn is max + 1.
            total[0] += delta if delta >= 0 else delta + spans[index] + 1
            last[index] = now
        return total[0]

    return read_uj
