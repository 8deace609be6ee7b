"""Power sensors the kernel knows: INA3221 (Jetson), INA2xx and others through /sys/class/hwmon.

A rail is a power*_input (microwatts) or an in*_input with its curr*_input (millivolts times
milliamperes). Rails that hold the whole module are known by their label and taken alone: they
already contain the others (jetson_stats#51, #344). Where no label tells, the user chooses:
``hwmon:rail=A+B`` (added), and says with it what the scope is.
JetPack 4 shows the INA3221 as an IIO device (in_power*_input, milliwatts).
Source: kernel documentation, hwmon/sysfs-interface, hwmon/ina3221, hwmon/ina2xx.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable

from device_agents import power
from device_agents.agent import facts

TOTALS = {
    "VDD_IN": "whole module (VDD_IN), without the carrier board",
    "POM_5V_IN": "whole module (POM_5V_IN), without the carrier board",
    "VIN": "module and carrier board (VIN)",
}
_MIN_PERIOD_S = 0.02
"""An INA3221 converts three rails in 6.6 ms unless told to average; faster polling only costs."""


def _rails(root: str) -> dict[str, tuple[str, list[str], float]]:
    """Rail -> (sensor's name, files to multiply, microwatts per unit)."""
    found = {}  # type: dict[str, tuple[str, list[str], float]]
    for folder in sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*"))):
        name = _text(folder + "/name") or os.path.basename(folder)
        inside = os.path.exists(folder + "/power1_input")  # made of the same current and voltage
        for path in sorted(glob.glob(folder + "/[cp]*[0-9]_input")):
            kind, index = re.findall(r"([a-z]+)(\d+)_input$", path)[0]
            volts = "%s/in%s_input" % (folder, index)
            if kind == "power":
                rail, files, unit = _text(path[:-5] + "label") or name, [path], 1.0
            elif kind == "curr" and os.path.exists(volts) and not inside:
                label = _text("%s/in%s_label" % (folder, index))
                rail, files, unit = label or "%s-%s" % (name, index), [volts, path], 1.0
            else:
                continue
            if rail and rail != "NC":
                found.setdefault(rail, (name, files, unit))
    pattern = "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"
    for path in sorted(glob.glob(os.path.join(root, pattern))):
        index = path.rsplit("_", 1)[1]
        watts = os.path.join(os.path.dirname(path), "in_power%s_input" % index)
        found.setdefault(_text(path) or "", ("ina3221x", [watts], 1000.0))
    return found


def _text(path: str) -> str | None:
    return facts.read("", path)


def _choose(root: str, options: dict[str, str]) -> tuple[dict[str, Any], list[Any]]:
    rails = _rails(root)
    wanted = [rail for rail in options.get("rail", "").split("+") if rail]
    missing = [rail for rail in wanted if rail not in rails]
    if missing:
        raise power.SensorError(
            "bad_option", "no rail %s (there are: %s)" % (missing[0], ", ".join(rails) or "none")
        )
    inas = [rail for rail in rails if rails[rail][0].startswith("ina")]
    totals = [rail for rail in TOTALS if rail in inas] + [
        rail for rail in rails if rails[rail][0] == "power_meter"
    ]
    chosen = wanted or totals[:1]
    if not chosen and len(inas) == 1:
        chosen = inas
    if not chosen:
        reason = "rail_unknown" if inas else "no_sensor"
        detail = "which of these rails is the whole is not known: " + ", ".join(inas)
        return power.answer(
            reason=reason, detail=detail, hint="choose: hwmon:rail=A, or hwmon:rail=A+B for a sum"
        ), []
    scope = TOTALS.get(chosen[0]) if len(chosen) == 1 else None
    if len(chosen) == 1 and rails[chosen[0]][0] == "power_meter":
        scope = "whole machine (ACPI power meter)"
    folder = os.path.dirname(rails[chosen[0]][1][0])
    interval_ms = _text(folder + "/update_interval") or ""
    period_s = float(interval_ms) / 1e3 if interval_ms.isdigit() else 0.0
    found = power.answer(
        source="hwmon:" + rails[chosen[0]][0],
        scope=scope or "what is behind " + "+".join(chosen),
        reason=None,
        detail="rails present: " + ", ".join(rails),
        period_s=max(period_s, _MIN_PERIOD_S),
    )
    return found, [rails[rail] for rail in chosen]


def describe(root: str, options: dict[str, str]) -> dict[str, Any]:
    """Return the rail that is taken, or what to choose from."""
    found, chosen = _choose(root, options)
    try:
        if chosen:
            _read_uw(chosen)
    except (OSError, power.SensorError) as exc:
        fix = "sudo chmod a+r on that file, or run the agent as root"
        return power.unreadable(found["source"], exc, fix)
    return found


def _read_uw(chosen: list[Any]) -> float:
    total = 0.0
    for _, files, unit in chosen:
        value = unit
        for path in files:
            value *= power.read_number(path)
        total += value
    return total


def open_power(root: str, options: dict[str, str]) -> Callable[[], float]:
    """Return a function that returns microwatts."""
    chosen = _choose(root, options)[1]
    return lambda: _read_uw(chosen)
