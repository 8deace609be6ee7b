"""Cores and priority of the worker."""

from __future__ import annotations

import os
import time

from device_agents.agent import facts

SAMPLE_S = 0.04
"""Long enough to see a core that is busy all the time, short beside one network."""

_KEEP_MARGIN = 0.25
_NEAR_TOP = 0.99


def choose_cores(n: int, root: str, previous: list[int] | None) -> list[int]:
    """Return `n` cores: the strongest class, then the least busy, on separate physical cores.

    The cores of the previous job are kept unless others are clearly quieter: jumping between
    cores would show up as drift. `busy` counts stolen time, so a core that shares its physical
    one with another machine's load is avoided where the hypervisor tells.
    """
    allowed = facts.allowed_cores()
    before = facts.cpu_ticks(root)
    time.sleep(SAMPLE_S)
    after = facts.cpu_ticks(root)
    return pick(n, allowed, root, _busy_shares(before, after), previous)


def pick(
    n: int, allowed: list[int], root: str, busy: dict[int, float], previous: list[int] | None
) -> list[int]:
    """The choice of `choose_cores`, given each core's busy share."""
    ranks = {core: facts.core_rank(root, core) for core in allowed}
    top = max(ranks.values())

    def cost(core: int) -> tuple[bool, float, int]:
        # Interrupts tend to land on the low numbers.
        return (ranks[core] < _NEAR_TOP * top, round(busy.get(core, 0.0), 1), -core)

    ordered = sorted(allowed, key=cost)
    chosen = []  # type: list[int]
    seen = set()
    for core in ordered:
        if facts.siblings(root, core) not in seen:
            seen.add(facts.siblings(root, core))
            chosen.append(core)
    chosen += [core for core in ordered if core not in chosen]
    chosen = sorted(chosen[:n])
    if previous and len(previous) == n and set(previous) <= set(allowed):
        worst_new = max(busy.get(core, 0.0) for core in chosen)
        worst_old = max(busy.get(core, 0.0) for core in previous)
        if worst_old <= worst_new + _KEEP_MARGIN:
            return previous
    return chosen


def _busy_shares(
    before: dict[int, tuple[int, int, int]], after: dict[int, tuple[int, int, int]]
) -> dict[int, float]:
    shares = {}
    for core, (busy, idle, _) in after.items():
        if core in before:
            worked, rested = busy - before[core][0], idle - before[core][1]
            if worked + rested > 0:
                shares[core] = worked / (worked + rested)
    return shares


def pin(cores: list[int] | None, everywhere: list[int]) -> list[int] | None:
    """Run on `cores` only (None: `everywhere`); returns the cores, None when not pinned."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        os.sched_setaffinity(0, cores or everywhere)
    except OSError:
        return None
    return cores


AUTOGROUP = "/proc/self/autogroup"


def set_nice(value: int | None) -> int:
    """Set the priority if allowed (None: back to normal); returns the one in force.

    Where the kernel groups processes by session (sched_autogroup, on by default on desktops and
    many servers), a nice value only counts inside the session. The worker leads a session of its
    own, so the group's value is set as well; with the process's alone three busy neighbours left
    it 41 % of a core, with both 99 %.
    """
    wanted = 0 if value is None else value
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) != wanted:
            os.setpriority(os.PRIO_PROCESS, 0, wanted)
        set_autogroup_nice(wanted)
    except OSError:
        # The caller sees it in the value returned, and the host flags it.
        return max(0, os.getpriority(os.PRIO_PROCESS, 0)) if wanted < 0 else wanted
    return os.getpriority(os.PRIO_PROCESS, 0)


def set_autogroup_nice(value: int) -> None:
    """Set the nice value of this session's scheduling group, where there is one.

    Only for a session this process leads: the group of a terminal is not ours to change.
    Raises: OSError when it is not allowed.
    """
    if os.getsid(0) != os.getpid() or not os.path.exists(AUTOGROUP):
        return
    with open(AUTOGROUP, "w") as file:
        file.write(str(value))


def nice_allowed() -> bool:
    """Whether the priority can be raised to the top."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    reached = set_nice(-20)
    set_nice(before)
    return reached == -20
