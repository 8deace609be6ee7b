"""What is looked at before a job is accepted, so that it fails at once and says why."""

from __future__ import annotations

import shutil
from typing import Any

from device_agents.agent import facts
from device_agents.agent.protocol import RequestError

DISK_MIN_MIB = 8
MEMORY_MIN_MIB = 32
"""Below this the kernel kills somebody, perhaps the one who could have said why."""


def check(options: dict[str, Any], root: str, work: str) -> None:
    """Refuse a job the board cannot run now. Raises: RequestError."""
    allowed = facts.allowed_cores()
    named = options["affinity"] if isinstance(options["affinity"], list) else []
    missing = sorted(set(named) - set(allowed))
    if missing:
        have = ", ".join(str(core) for core in allowed)
        message = "core %s is offline or not allowed (there are: %s)" % (missing[0], have)
        raise RequestError("core_offline", message)
    threads, quota = options["threads"], facts.cgroup_quota(root)
    if threads > len(allowed) or (quota is not None and threads > quota + 1e-6):
        have = "%d cores" % len(allowed) if quota is None else "%.2f cores' quota" % quota
        raise RequestError("not_enough_cpu", "%d threads, but only %s" % (threads, have))
    free_mib = shutil.disk_usage(work).free // 2**20
    if free_mib < DISK_MIN_MIB:
        message = "%d MiB free in %s, a job needs %d" % (free_mib, work, DISK_MIN_MIB)
        raise RequestError("no_space", message)
    memory_mib = facts.memory_mib(root, "MemAvailable")
    if memory_mib is not None and memory_mib < MEMORY_MIN_MIB:
        message = "%d MiB of memory available, a job needs %d" % (memory_mib, MEMORY_MIN_MIB)
        raise RequestError("no_memory", message, retryable=True)
