"""ODPM: the energy counters of a Pixel's power rails (Pixel 6 and later), through IIO.

``energy_value`` says ``t=MS``, then ``CH3(T=MS)[S2M_VDD_CPUCL2], MICROWATTSECONDS`` for each rail.
Rails overlap and differ between devices, so the processor's alone are taken, unless the user says
which: ``odpm:rail=A+B``. Reading needs root on production builds.
Source: Perfetto "power rails"; Android common kernel, drivers/iio/power/odpm.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable

from device_agents import power
from device_agents.power import battery

_LINE = re.compile(r"CH\d+\(T=\d+\)\[([^\]]+)\],\s*(\d+)$")
_CPU = re.compile(r"VDD_CPU")


def parse(text: str) -> dict[str, int]:
    """Rail -> microjoules since boot. Raises: SensorError "parse_failed"."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not re.match(r"t=\d+$", lines[0]):
        raise power.SensorError("parse_failed", "energy_value says %r" % text[:80])
    rails = {}
    for line in lines[1:]:
        found = _LINE.match(line)
        if found is None:
            raise power.SensorError("parse_failed", "energy_value says %r" % line[:80])
        rails[found.group(1)] = int(found.group(2))
    return rails


def _files(root: str) -> list[str]:
    return sorted(glob.glob(os.path.join(root, "sys/bus/iio/devices/iio:device*/energy_value")))


def _read(root: str) -> dict[str, int]:
    rails = {}
    for path in _files(root):
        rails.update(parse(power.read_text(path)))
    return rails


def _chosen(rails: dict[str, int], options: dict[str, str]) -> list[str]:
    wanted = [rail for rail in options.get("rail", "").split("+") if rail]
    missing = [rail for rail in wanted if rail not in rails]
    if missing:
        text = "no rail %s (there are: %s)" % (missing[0], ", ".join(sorted(rails)))
        raise power.SensorError("bad_option", text)
    return wanted or sorted(rail for rail in rails if _CPU.search(rail))


def describe(root: str, options: dict[str, str]) -> dict[str, Any]:
    """Return the processor's rails, or why they cannot be read."""
    if not _files(root):
        return power.answer()
    refused = battery.refuse_charging(root, "odpm")
    if refused is not None:
        return refused
    try:
        rails = _read(root)
        chosen = _chosen(rails, options)
    except (OSError, power.SensorError) as exc:
        fix = "the rails need root (adb root on a userdebug build); or choose: --power battery"
        return power.unreadable("odpm", exc, fix)
    if not chosen:
        text = "no processor rail among " + ", ".join(sorted(rails))
        return power.answer(reason="rail_unknown", detail=text, hint="choose: odpm:rail=A+B")
    return power.answer(
        source="odpm",
        scope="rails " + "+".join(chosen),
        reason=None,
        detail="rails present: " + ", ".join(sorted(rails)),
        period_s=0.125,
    )


def open_counter(root: str, options: dict[str, str]) -> Callable[[], int]:
    """Return a function that returns microjoules since now, over the chosen rails."""
    rails = _read(root)
    chosen = _chosen(rails, options)
    begin = sum(rails[rail] for rail in chosen)
    last = [begin]

    def read_uj() -> int:
        why = battery.charging(root)
        if why is not None:
            raise power.SensorError("charging", why)
        now = _read(root)
        total = sum(now[rail] for rail in chosen)
        if total < last[0]:
            raise power.SensorError("sensor_failed", "the rails' counters went backwards")
        last[0] = total
        return total - begin

    return read_uj
