"""Android, from inside. What a family module has is said in agent/board.py; notes in the README."""

from __future__ import annotations

import os
from typing import Any

from device_agents.agent import facts
from device_agents.android import parse

FAMILY = "android"


def matches(root: str) -> bool:
    """Whether Android's own tools are there."""
    return os.path.exists(os.path.join(root, "system/bin/getprop"))


def describe(root: str) -> dict[str, Any]:
    """Model, chip, Android version and the strongest cores."""
    found = {"model": None}  # type: dict[str, Any]
    text = facts.tool(root, "getprop") or ""
    try:
        props = parse.properties(text)
    except ValueError:
        found["getprop_error"], found["getprop_raw"] = "parse_failed", text[:500]
        return {**found, "big_cores": big_cores(root)}
    maker, model = props.get("ro.product.manufacturer", ""), props.get("ro.product.model", "")
    found["model"] = ("%s %s" % (maker, model)).strip() or None
    chip = [props.get("ro.soc.manufacturer"), props.get("ro.soc.model")]
    soc = " ".join(part for part in chip if part) or props.get("ro.board.platform")
    if soc:
        found["soc"] = soc
    release = props.get("ro.build.version.release")
    found["os"] = "Android %s" % release if release else None
    found["sdk"] = int(props.get("ro.build.version.sdk", "") or 0) or None
    found["build"] = props.get("ro.build.fingerprint")
    found["big_cores"] = big_cores(root)
    return found


def big_cores(root: str) -> list[int] | None:
    """The cores of the highest capacity; None where they do not differ or nothing tells."""
    ranks = {core: facts.core_rank(root, core) for core in range(os.cpu_count() or 1)}
    top = max(ranks.values())
    big = [core for core, rank in ranks.items() if rank == top]
    return big if top and len(big) < len(ranks) else None


def environment(root: str) -> dict[str, Any]:
    """Thermal status, battery and screen; what this user may not ask for says so."""
    found = {}  # type: dict[str, Any]
    for key, service, parser in (
        ("thermal_status", "thermalservice", parse.thermal_status),
        ("battery", "battery", parse.battery),
        ("screen", "power", parse.wakefulness),
    ):
        found[key] = None
        value, error = _dumpsys(root, service, parser)
        if isinstance(value, dict):
            del found[key]
            found.update(("battery_" + name, each) for name, each in value.items())
        elif error is None:
            found[key] = value
        else:
            found.update(error)
    return found


def throttle_state(root: str) -> dict[str, Any] | None:
    """The thermal service's status: anything but none."""
    text = facts.tool(root, "dumpsys", "thermalservice")
    if text is None:
        return None
    state = {"now": [], "sticky": [], "raw": text[:200]}  # type: dict[str, Any]
    try:
        status = parse.thermal_status(text)
    except ValueError:
        denied = "Permission Denial" in text or "Can't find service" in text
        return {**state, "error": "permission" if denied else "parse_failed"}
    state["raw"] = "Thermal Status: " + status
    state["now"] = [] if status == "none" else ["thermal_" + status]
    return state


def _dumpsys(root: str, service: str, parser: Any) -> tuple[Any, dict[str, Any] | None]:
    """(value, None), or (None, the facts that say why not)."""
    text = facts.tool(root, "dumpsys", service)
    key = "dumpsys_%s_error" % service
    if text is None:
        return None, {key: "dumpsys is missing, fails, or is not allowed"}
    try:
        return parser(text), None
    except ValueError:
        if "Permission Denial" in text or "Can't find service" in text:
            return None, {key: "permission: needs the adb shell's user (Termux has it not)"}
        return None, {key: "parse_failed", "dumpsys_%s_raw" % service: text[:500]}
