"""NVIDIA Jetson. What a family module has is said in agent/board.py; notes in the README."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from typing import Any

from device_agents.agent import board, facts
from device_agents.jetson import parse

FAMILY = "jetson"
_COMPATIBLE = "proc/device-tree/compatible"
_RELEASE = "etc/nv_tegra_release"
_ON = "on"


def matches(root: str) -> bool:
    """Whether NVIDIA's release file or the device tree says so."""
    return "nvidia,tegra" in (facts.read(root, _COMPATIBLE) or "") or bool(
        facts.read(root, _RELEASE)
    )


def describe(root: str) -> dict[str, Any]:
    """Model, chip, L4T and JetPack versions."""
    chip = re.search(r"nvidia,(tegra\d+)", facts.read(root, _COMPATIBLE) or "")
    found = {
        "model": facts.read(root, "proc/device-tree/model"),
        "l4t": None,
        "jetpack": parse.jetpack(facts.read(root, "var/lib/dpkg/status") or ""),
    }  # type: dict[str, Any]
    if chip:
        found["soc"] = chip.group(1)
    text = facts.read(root, _RELEASE)
    if text is not None:
        _parsed(found, "l4t", parse.l4t, text)
    return found


def environment(root: str) -> dict[str, Any]:
    """Power mode, clocks (root only) and fans."""
    found = {"power_mode": None, "clocks": None}  # type: dict[str, Any]
    text = facts.tool(root, "nvpmodel", "-q")
    if text is not None:
        _parsed(found, "power_mode", parse.nvpmodel, text)
    if isinstance(found["power_mode"], tuple):
        found["power_mode"], found["power_mode_id"] = found["power_mode"]
    text = facts.tool(root, "jetson_clocks", "--show")
    if text is not None:
        _parsed(found, "clocks", parse.clocks, text)
    clocks = found.pop("clocks")
    if clocks:
        found.update(("clocks_" + key, value) for key, value in clocks.items())
    found["fan_pwm"] = [facts.read_int("", path) for path in _fans(root)] or None
    return found


def _parsed(into: dict[str, Any], key: str, parser: Any, text: str) -> None:
    try:
        into[key] = parser(text)
    except ValueError:
        into[key + "_error"], into[key + "_raw"] = "parse_failed", text[:500]


# --- throttling -----------------------------------------------------------------------------------


def throttle_count(root: str, _cores: list[int]) -> int | None:
    """Over-current events of the whole module since boot."""
    counts = [count for _, count in _over_current(root) if count is not None]
    return sum(counts) if counts else None


def throttle_state(root: str) -> dict[str, Any] | None:
    """Active cooling (fans do not throttle), and over-current events since boot."""
    now, seen = [], []
    for path in sorted(glob.glob(os.path.join(root, "sys/class/thermal/cooling_device*/type"))):
        kind = facts.read("", path) or ""
        state = facts.read_int(os.path.dirname(path), "cur_state")
        if "fan" in kind.lower() or state is None:
            continue
        seen.append("%s=%d" % (kind, state))
        if state > 0 and kind not in now:
            now.append(kind)
    events = _over_current(root)
    seen += ["%s=%s" % event for event in events]
    if not seen:
        return None
    sticky = ["over_current"] if any(count for _, count in events) else []
    return {"now": now, "sticky": sticky, "raw": " ".join(seen)}


def _over_current(root: str) -> list[tuple[str, int | None]]:
    pattern = os.path.join(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    return [
        (os.path.basename(path), facts.read_int("", path)) for path in sorted(glob.glob(pattern))
    ]


# --- quiet ----------------------------------------------------------------------------------------


def quiet_actions(root: str) -> list[board.Action]:
    """Clocks at their maximum (of the power mode, which is left alone), fans on full."""
    fans = [
        board.Action(
            "fan:" + os.path.relpath(path, root),
            lambda path=path: facts.read("", path) if os.access(path, os.W_OK) else None,
            lambda text, path=path: _write(path, text),
            "255",
        )
        for path in _fans(root)
    ]
    clocks = board.Action(
        "jetson_clocks",
        lambda: _stored_clocks(root) if os.geteuid() == 0 else None,
        lambda text: _set_clocks(root, text),
        _ON,
    )
    return [clocks, *fans]


def _fans(root: str) -> list[str]:
    found = glob.glob(os.path.join(root, "sys/devices/pwm-fan/target_pwm"))
    for name in glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/name")):
        if facts.read("", name) == "pwmfan":
            found.append(os.path.join(os.path.dirname(name), "pwm1"))
    return sorted(path for path in found if os.path.exists(path))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


def _stored_clocks(root: str) -> str | None:
    """What ``jetson_clocks --store`` writes; it asks before it overwrites a file, so a new one."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "clocks")
        if facts.tool(root, "jetson_clocks", "--store", path, timeout_s=10.0) is None:
            return None
        return facts.read("", path) or None


def _set_clocks(root: str, text: str) -> None:
    command = ["jetson_clocks"]
    with tempfile.TemporaryDirectory() as folder:
        if text != _ON:
            path = os.path.join(folder, "clocks")
            _write(path, text + "\n")
            command += ["--restore", path]
        if facts.tool(root, *command, timeout_s=20.0) is None:
            raise OSError("%s failed" % " ".join(command[:2]))
