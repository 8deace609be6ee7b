"""Where a board's energy readings come from, and the meter that counts them.

A backend is a module of two or three small functions:

``describe(root, options)``
    ``{source, scope, reason, detail, hint}``, and ``period_s`` (the time between fresh readings)
    where it has one. `reason` is None when the sensor can be read, "no_sensor" when there is none
    (the next backend is asked), else a code that ends the search: another sensor with another scope
    is never taken instead. `scope` says what the readings include.
``open_counter(root, options)``
    for sensors that count energy: returns a function that returns microjoules since it was opened.
``open_power(root, options)``
    for sensors that tell power: returns a function that returns microwatts; `sampled` polls it.

Functions raise OSError when the sensor cannot be read and SensorError (with a code) when it says
something impossible. The user chooses with ``NAME`` or ``NAME:key=value,...``, for example
``hwmon:rail=VDD_IN``; the environment variable HWNAS_POWER says so to the agent.
"""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

from device_agents.power.meter import Meter, SensorError

ORDER = ("rapl", "hwmon", "odpm", "pmic", "battery")
"""Counters before sampled power, the wider scope before the narrower."""
_CHIPS = ("ina219", "ina226", "ina260")
"""On the I2C bus; only by choice, for nothing is written to an address nobody named."""


def describe(root: str, choice: str | None = None) -> dict[str, Any]:
    """Return what this board's energy source is, or why there is none."""
    try:
        return _find(root, choice)[1]
    except SensorError as exc:
        return answer(reason=exc.code, detail=str(exc), hint="see device_agents/power/README.md")


def open_counter(root: str, choice: str | None = None) -> Meter | None:
    """Return the board's energy meter, None where `describe` gives a reason."""
    try:
        backend, found, options = _find(root, choice)
    except SensorError:
        return None
    if found["reason"] is not None:
        return None
    if hasattr(backend, "open_power"):
        from device_agents.power import sampled

        return sampled.SampledMeter(root, choice or _chosen(), found)
    return Meter(lambda: backend.open_counter(root, options), found)


def open_power(root: str, choice: str | None = None) -> Any:
    """Return the sampled backend's function that returns microwatts (for `sampled`)."""
    backend, _, options = _find(root, choice)
    return backend.open_power(root, options)


def answer(**fields: Any) -> dict[str, Any]:
    """What a backend's `describe` returns."""
    blank = {"source": None, "scope": None, "reason": "no_sensor", "detail": "", "hint": ""}
    return {**blank, **fields}


def unreadable(source: str, exc: Exception, fix: str) -> dict[str, Any]:
    """The answer for a sensor that is there and cannot be read; `fix` is for permissions."""
    denied = isinstance(exc, OSError) and exc.errno in (errno.EACCES, errno.EPERM)
    reason = "sensor_permission" if denied else getattr(exc, "code", "sensor_failed")
    return answer(source=source, reason=reason, detail=str(exc), hint=fix if denied else "")


def read_text(path: str) -> str:
    """Content of a small file, stripped. Raises: OSError."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read().strip()


def read_number(path: str) -> int:
    """The number a file holds. Raises: OSError; SensorError "parse_failed"."""
    text = read_text(path)
    try:
        return int(text)
    except ValueError:
        raise SensorError("parse_failed", "%s says %r" % (path, text[:80])) from None


def number(options: dict[str, str], key: str, default: Any) -> Any:
    """A number among the user's options (0x40 is one). Raises: SensorError "bad_option"."""
    text = options.get(key)
    if text is None:
        return default
    try:
        return int(text, 0) if isinstance(default, int) else float(text)
    except ValueError:
        raise SensorError("bad_option", "%s=%s is no number" % (key, text)) from None


def _chosen() -> str:
    return os.environ.get("HWNAS_POWER", "")


def _find(root: str, choice: str | None) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """(backend, its description, the user's options). Raises: SensorError."""
    name, _, rest = (choice or _chosen()).partition(":")
    options = {}
    for word in rest.split(",") if rest else []:
        key, _, options[key] = word.partition("=")
    if name in _CHIPS:
        options["chip"], name = name, "ina2xx_i2c"
    elif name and name not in (*ORDER, "none"):
        known = ", ".join((*ORDER, *_CHIPS, "none"))
        raise SensorError("bad_option", "no power source is called %s (known: %s)" % (name, known))
    for each in (name,) if name else ORDER:
        backend = importlib.import_module("device_agents.power." + each)
        found = backend.describe(root, options)
        if found["reason"] != "no_sensor" or name:
            return backend, found, options
    none = importlib.import_module("device_agents.power.none")
    return none, none.describe(root, options), options
