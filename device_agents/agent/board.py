"""Which family of boards this is, and what that family knows beyond Linux in general.

A family is one module, ``device_agents/<family>/board.py``, with

``FAMILY``
    its name; what "device.family" says unless ``describe`` says otherwise.
``matches(root)``
    whether this is such a board. Reads a few files, never raises, takes no time.
``describe(root)``
    what to add to (or change in) the "device" part of a probe: ``model``, ``soc``, firmware and the
    like; JSON values only, unreadable is None. May run a tool; at most 2 s. Never raises.

and, where the family has it (a missing function means "nothing of the kind"):

``throttle_count(root, cores)``
    a counter since boot of throttling events that concern `cores`, None when unreadable. Read
    before and after every timed block by the measuring process, so: files only, well below 1 ms.
``throttle_state(root)``
    for boards that tell only by a tool: ``{"now": [...], "sticky": [...], "raw": text}`` (short
    names such as "under_voltage"; sticky: since boot), None when there is nothing to be had. Called
    once a second while a job runs, by the supervisor's thread, so it may run a tool for up to a
    second. What it cannot parse it keeps in "raw" with both lists empty and "error": text.
``environment(root)``
    facts that change between jobs (power mode, thermal status, battery), a flat JSON object; it
    becomes ``environment.conditions``. May run tools, 2 s in all; called before and after a job.
``quiet_actions(root)``
    what can be made steadier than the governor alone does: a list of `Action`. Each is undone at
    release, at exit, and after ``kill -9`` of the agent, by another process that knows only the
    action's name and the text `read` returned. So `read` and `write` must not rely on state kept in
    memory. Actions are done in the order of the list and undone backwards.

Tools are run by `facts.tool(root, "vcgencmd", "get_throttled")`, which returns the text they print
or None, and which with another `root` takes the program from below it (tests put scripts there).
"""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any, Callable

from device_agents.agent import facts

FAMILIES = ("jetson", "raspberry_pi", "android", "x86", "linux")
"""In the order they are asked; the last one matches everything."""

_found = {}  # type: dict[str, Any]


class Action:
    """One setting that is changed for a job and restored after it.

    Args:
        name: unique on the board, e.g. "jetson_clocks"; shown to the user.
        read: returns the present setting as text, None when it cannot be read or changed by us.
        write: sets it to such a text. Raises: OSError (or anything) when that is refused.
        quiet: the text to write while measuring.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], str | None],
        write: Callable[[str], object],
        quiet: str,
    ) -> None:
        self.name = name
        self.read = read
        self.write = write
        self.quiet = quiet


def detect(root: str) -> Any:
    """Return the module of this board's family (the same one for the same root)."""
    if root not in _found:
        for name in FAMILIES:
            module = _load(name)
            if module is not None and module.matches(root):
                _found[root] = module
                break
    return _found[root]


def describe(root: str, child_pid: int | None = None) -> dict[str, Any]:
    """Return the "device" part of a probe.

    Args:
        root: of the file system.
        child_pid: a child process of ours, looked at for an emulator.
    """
    from device_agents.agent import machine

    family = detect(root)
    soc = machine.processor_name(root)
    arch = platform.machine()
    common = {
        "family": family.FAMILY,
        "model": None,
        "soc": soc,
        "arch": arch,
        "cores": os.cpu_count() or 1,
        "memory_mib": facts.memory_mib(root) or 0,
        "machine": machine.kind(root, arch, child_pid),
        "os": facts.os_name(root),
        "kernel": platform.release(),
        "hostname_hash": facts.sha16(platform.node()),
        "fingerprint": facts.identity(root, soc),
    }
    return {**common, **family.describe(root)}


def throttle_count(root: str, cores: list[int]) -> int | None:
    """Throttling events of `cores` since boot, None where nothing counts them."""
    count = getattr(detect(root), "throttle_count", None)
    return None if count is None else count(root, cores)


def throttle_state(root: str) -> dict[str, Any] | None:
    """What the board says of throttling now, None where it says nothing."""
    state = getattr(detect(root), "throttle_state", None)
    return None if state is None else state(root)


def environment(root: str, work: str) -> dict[str, Any]:
    """What may change from one job to the next, the family's part as "conditions"."""
    conditions = getattr(detect(root), "environment", None)
    common = facts.environment(root, work)
    return common if conditions is None else {**common, "conditions": conditions(root)}


def quiet_actions(root: str) -> list[Action]:
    """The family's own quiet settings."""
    actions = getattr(detect(root), "quiet_actions", None)
    return [] if actions is None else list(actions(root))


def _load(name: str) -> Any:
    try:
        return importlib.import_module("device_agents.%s.board" % name)
    except ImportError:
        return None
