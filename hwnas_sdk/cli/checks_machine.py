"""What `hwnas doctor` looks at in the machine: everything that disturbs a measurement here.

Nothing below is needed to run; each finding says what it does to the numbers and how to mend it.
Folders of the kernel are parameters, so that tests can show other machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from hwnas_sdk.cli.checks import Check

SYS = Path("/sys")
PROC = Path("/proc")

_GOOD_CLOCKS = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"}
_OLDEST = datetime(2025, 1, 1, tzinfo=UTC)  # an earlier date means the clock was never set


def check_governor(sys_folder: Path = SYS) -> Check:
    """CPU frequency governor."""
    found: Counter[str] = Counter()
    for path in sys_folder.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"):
        found[_read(path) or "unreadable"] += 1
    if not found:
        return Check(
            name="cpu governor",
            ok=True,
            detail="not visible here (usual on a virtual machine); the clock may change unseen",
        )
    ok = set(found) == {"performance"}
    return Check(
        name="cpu governor",
        ok=ok,
        detail=", ".join(f"{name} on {n} cores" for name, n in found.items())
        + ("" if ok else "; measurements are flagged governor_not_pinned"),
        fix=""
        if ok
        else "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def check_virtualisation(proc_folder: Path = PROC, sys_folder: Path = SYS) -> Check:
    """Whether other guests share this processor."""
    flags = next(
        (
            line
            for line in (_read(proc_folder / "cpuinfo") or "").splitlines()
            if line.startswith("flags")
        ),
        "",
    )
    virtual = " hypervisor" in flags or (sys_folder / "hypervisor" / "type").exists()
    if not virtual:
        return Check(name="virtualisation", ok=True, detail="bare machine")
    product = _read(sys_folder / "class/dmi/id/sys_vendor") or "unknown hypervisor"
    return Check(
        name="virtualisation",
        ok=False,
        detail=f"virtual machine ({product}): neighbours may disturb; the drift limit is 10 %, "
        "not 3 %, and measurements are flagged virtualised",
        fix="measure on a bare machine what is to be published",
    )


def check_priority() -> Check:
    """Whether the measuring process may raise its priority."""
    code = "import os; os.nice(-20 - os.nice(0))"
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    ok = done.returncode == 0
    user = os.environ.get("USER", "USER")
    return Check(
        name="priority",
        ok=ok,
        detail="nice -20 is allowed" if ok else "nice -20 is denied; flagged nice_denied",
        fix=""
        if ok
        else f"echo '{user} - nice -20' | sudo tee -a /etc/security/limits.conf, then log in again",
    )


def check_load() -> Check:
    """Whether something else keeps the processor busy."""
    load1, cores = os.getloadavg()[0], os.cpu_count() or 1
    ok = load1 < 0.5 * cores
    return Check(
        name="load",
        ok=ok,
        detail=f"{load1:.1f} processes ran on average in the last minute, {cores} cores",
        fix="" if ok else "end other programs while measuring (see 'top')",
    )


def check_power(sys_folder: Path = SYS) -> Check:
    """RAPL, the energy counter of x86 processors."""
    domains = sorted(sys_folder.glob("class/powercap/intel-rapl:*"))
    counters = [path / "energy_uj" for path in domains if (path / "energy_uj").exists()]
    if not counters:
        return Check(
            name="power sensor",
            ok=False,
            detail=f"no_sensor: no RAPL under {sys_folder / 'class/powercap'}; energy stays empty",
            fix="on a bare x86 machine: sudo modprobe intel_rapl_msr",
        )
    locked = [path for path in counters if _read(path) is None]
    if locked:
        return Check(
            name="power sensor",
            ok=False,
            detail=f"sensor_permission: {locked[0]} is not readable; energy stays empty",
            fix=f"sudo chmod a+r {sys_folder / 'class/powercap'}/intel-rapl:*/energy_uj "
            "(until the next boot; a udev rule makes it last)",
        )
    names = [_read(path.parent / "name") or path.parent.name for path in counters]
    return Check(name="power sensor", ok=True, detail=f"RAPL: {', '.join(names)}")


def check_clock(sys_folder: Path = SYS) -> Check:
    """Date, clock source and resolution of the timer."""
    source = _read(sys_folder / "devices/system/clocksource/clocksource0/current_clocksource")
    steps = []
    for _ in range(200):
        start_ns = time.perf_counter_ns()
        while (end_ns := time.perf_counter_ns()) == start_ns:
            pass
        steps.append(end_ns - start_ns)
    step_ns = sorted(steps)[len(steps) // 2]
    problems, fixes = [], []
    now = datetime.now(UTC)
    if now < _OLDEST:
        problems.append(f"the date is {now:%Y-%m-%d}")
        fixes.append("sudo timedatectl set-ntp true")
    if source is not None and source not in _GOOD_CLOCKS:
        problems.append(f"the clock source {source!r} is slow")
        fixes.append("boot with the kernel option clocksource=tsc")
    if step_ns > 5_000:
        problems.append("the timer is coarse")
    return Check(
        name="clock",
        ok=not problems,
        detail="; ".join(
            [*problems, f"source {source or 'unknown'}, timer step {step_ns} ns, UTC {now:%F %T}"]
        ),
        fix="; ".join(fixes),
    )


def _read(path: Path) -> str | None:
    """Text of a small kernel file, None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
