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
_GROUP_RETRY_S = 0.11
"""Without CAP_SYS_ADMIN the kernel accepts one change of a group in 100 ms."""


def set_nice(value: int | None) -> int:
    """Set the priority if allowed (None: back to normal); returns the one in force.

    Where the kernel groups processes by session (sched_autogroup, on by default on desktops and
    many servers), a nice value only counts inside the session. The worker leads a session of its
    own, so the group's value is set as well; with the process's alone three busy neighbours left
    it 41 % of a core, with both 99 %.
    """
    wanted = 0 if value is None else value
    set_process_nice(wanted)
    in_force = os.getpriority(os.PRIO_PROCESS, 0)
    if not set_autogroup_nice(wanted) and wanted < 0:
        return max(0, in_force)  # high inside a session that is not: the host flags it
    return in_force


def set_process_nice(value: int) -> None:
    """Set this process's nice value, if allowed."""
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) != value:
            os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError:
        pass  # the caller reads what is in force


def set_autogroup_nice(value: int) -> bool:
    """Set the nice value of this session's scheduling group; False when that is not allowed.

    Only for a session this process leads: the group of a terminal is not ours to change.
    """
    if os.getsid(0) != os.getpid() or not os.path.exists(AUTOGROUP):
        return True
    for _ in range(4):
        done = _write_group(value)
        if done is not None:
            return done
        time.sleep(_GROUP_RETRY_S)
    return False


def _write_group(value: int) -> bool | None:
    """Write the group's value unless it is there; None when the kernel says to try later."""
    try:
        with open(AUTOGROUP) as file:
            if int(file.read().rsplit(None, 1)[1]) == value:
                return True
        with open(AUTOGROUP, "w") as file:
            file.write(str(value))
    except BlockingIOError:
        return None
    except (OSError, ValueError, IndexError):
        return False
    return True


def nice_allowed() -> bool:
    """Whether the priority can be raised to the top (tried on this process, not on its group)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    set_process_nice(-20)
    reached = os.getpriority(os.PRIO_PROCESS, 0)
    set_process_nice(before)
    return reached == -20
