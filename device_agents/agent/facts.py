"""What Linux says about a board. Everything unreadable is None; `root` replaces ``/`` in tests."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
from typing import Any

TICK_NS = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") or 100)
_CPU = "sys/devices/system/cpu"
_PROGRAM_FOLDERS = ("usr/bin", "bin", "usr/sbin", "sbin", "system/bin", "opt/vc/bin")


def read(root: str, path: str) -> str | None:
    """Content of a small file, stripped; None when there is none to read."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
            return stream.read().strip("\n\0 ")
    except OSError:
        return None


def read_int(root: str, path: str) -> int | None:
    """Content of a file that holds one number."""
    text = read(root, path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def tool(root: str, *command: str, timeout_s: float = 2.0) -> str | None:
    """What a program prints on standard output, stripped; None when it is missing or fails.

    With another `root` the program is the one below it (``usr/bin`` and the like), never ours.
    """
    folders = [] if root == "/" else [os.path.join(root, name) for name in _PROGRAM_FOLDERS]
    path = shutil.which(command[0], path=os.pathsep.join(folders) if folders else _program_path())
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _program_path() -> str:
    """PATH, with the folders a shell without login files leaves out."""
    ours = os.environ.get("PATH", "")
    return os.pathsep.join([ours, *("/" + name for name in _PROGRAM_FOLDERS)])


def sha16(text: str) -> str:
    """First 16 hex digits of a SHA-256."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def allowed_cores() -> list[int]:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory_mib(root: str, key: str = "MemTotal") -> int | None:
    """An entry of /proc/meminfo."""
    found = re.search(r"^%s:\s+(\d+) kB" % key, read(root, "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def identity(root: str, soc: str) -> str:
    """Name of this board that survives reboots and does not tell who it is.

    Root-only serial numbers are left out: the same board must not change its name with the user.
    """
    stable = read(root, "etc/machine-id") or read(root, "proc/device-tree/serial-number")
    parts = [stable or socket.gethostname(), soc, platform.machine(), str(os.cpu_count())]
    return sha16("|".join(parts))


def os_name(root: str) -> str | None:
    """Pretty name of the distribution."""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', read(root, "etc/os-release") or "", re.MULTILINE)
    return found.group(1) if found else None


def core_rank(root: str, core: int) -> int:
    """How strong a core is beside the others: capacity, else its highest clock; 0 unknown."""
    folder = "%s/cpu%d" % (_CPU, core)
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        value = read_int(root, "%s/%s" % (folder, name))
        if value:
            return value
    return 0


def siblings(root: str, core: int) -> str:
    """Hardware threads that share the core, as the kernel writes them."""
    text = read(root, "%s/cpu%d/topology/thread_siblings_list" % (_CPU, core))
    return text or str(core)


def clock_khz(root: str, core: int) -> int | None:
    """Present clock of a core."""
    return read_int(root, "%s/cpu%d/cpufreq/scaling_cur_freq" % (_CPU, core))


def _zones(root: str) -> tuple[list[str], list[str]]:
    """Folders of the thermal zones that are the processor's, and of the others."""
    named, others = [], []
    for path in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*"))):
        kind = (read("", os.path.join(path, "type")) or "").lower()
        is_cpu = re.search(r"cpu|soc|pkg|x86|core|big|little", kind)
        (named if is_cpu else others).append(path)
    return named, others


def temperature_files(root: str) -> list[str]:
    """Files that hold a temperature of the processor, in thousandths of a degree.

    Zones of radios, batteries and discs are not the processor's; where no zone says what it is,
    all are taken.
    """
    named, others = ([path + "/temp" for path in zones] for zones in _zones(root))
    for path in sorted(glob.glob(os.path.join(root, "sys/class/hwmon/hwmon*/temp*_input"))):
        name = read("", os.path.join(os.path.dirname(path), "name")) or ""
        if name in ("coretemp", "k10temp", "zenpower", "cpu_thermal"):
            named.append(path)
    return named or others


def temperature_limit_c(root: str) -> float | None:
    """Where the kernel begins to slow the processor down: its lowest "passive" or "hot" trip."""
    limits = []
    for zone in _zones(root)[0]:
        for path in glob.glob(zone + "/trip_point_*_type"):
            value = read_int("", path[: -len("type")] + "temp")
            # Some firmware fills unused trips with 0 or nonsense.
            if read("", path) in ("passive", "hot") and value is not None and value > 30_000:
                limits.append(value / 1000.0)
    return min(limits, default=None)


def temperature_c(files: list[str]) -> float | None:
    """Highest reading of `temperature_files`."""
    readings = [value for value in (read_int("", path) for path in files) if value is not None]
    return max(readings) / 1000.0 if readings else None


def cpu_ticks(root: str) -> dict[int, tuple[int, int, int]]:
    """Core -> (busy, idle, steal) ticks since boot; steal is part of busy."""
    ticks = {}
    for line in (read(root, "proc/stat") or "").splitlines():
        if line.startswith("cpu") and line[3:4].isdigit():
            fields = line.split()
            values = [int(value) for value in fields[1:9]]
            idle = values[3] + values[4]
            steal = values[7] if len(values) > 7 else 0
            ticks[int(fields[0][3:])] = (sum(values) - idle, idle, steal)
    return ticks


def steal_ns(root: str, cores: list[int]) -> int | None:
    """Time the hypervisor took from `cores` since boot."""
    ticks = cpu_ticks(root)
    known = [ticks[core][2] for core in cores if core in ticks]
    return sum(known) * TICK_NS if known else None


def cgroup_quota(root: str) -> float | None:
    """Cores' worth of CPU time the control group allows, None without a limit."""
    own = "/"
    for line in (read(root, "proc/self/cgroup") or "").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" or "cpu" in controllers.split(","):
            own = path
    quotas = []
    parts = [part for part in own.split("/") if part]
    # The nearest limit is not always the tightest, so every ancestor is asked. Inside a container
    # the own path is often not visible below its own mount; the root of the mount is then it.
    for depth in range(len(parts) + 1):
        folder = "/".join(parts[:depth])
        text = read(root, "sys/fs/cgroup/%s/cpu.max" % folder)
        if text and not text.startswith("max"):
            quota, period = text.split()
            quotas.append(int(quota) / int(period))
        quota_us = read_int(root, "sys/fs/cgroup/cpu/%s/cpu.cfs_quota_us" % folder)
        period_us = read_int(root, "sys/fs/cgroup/cpu/%s/cpu.cfs_period_us" % folder)
        if quota_us and quota_us > 0 and period_us:
            quotas.append(quota_us / period_us)
    return min(quotas) if quotas else None


def governor(root: str, cores: list[int]) -> str | None:
    """Frequency governor of `cores`; several are joined with '+'."""
    path = _CPU + "/cpu%d/cpufreq/scaling_governor"
    found = {read(root, path % core) for core in cores} - {None}
    return "+".join(sorted(str(name) for name in found)) or None


def governor_writable(root: str) -> bool:
    """Whether this user may change the governor."""
    path = os.path.join(root, _CPU, "cpu0/cpufreq/scaling_governor")
    return os.access(path, os.W_OK)


def boost(root: str) -> bool | None:
    """Whether the processor may run above its nominal clock."""
    value = read_int(root, _CPU + "/cpufreq/boost")
    if value is not None:
        return bool(value)
    value = read_int(root, _CPU + "/intel_pstate/no_turbo")
    return None if value is None else not value


def environment(root: str, work: str) -> dict[str, Any]:
    """What may change from one job to the next."""
    cores = allowed_cores()
    clocks = [clock_khz(root, core) for core in cores]
    tops = [read_int(root, "%s/cpu%d/cpufreq/cpuinfo_max_freq" % (_CPU, core)) for core in cores]
    known_tops = [top for top in tops if top is not None]
    load = (read(root, "proc/loadavg") or "").split()
    stolen_ns = steal_ns(root, cores)
    pressure = re.search(r"some avg10=([\d.]+)", read(root, "proc/pressure/cpu") or "")
    return {
        "governor": governor(root, cores),
        "freq_khz": None if None in clocks else clocks,
        "freq_max_khz": max(known_tops) if known_tops else None,
        "boost": boost(root),
        "temperature_c": temperature_c(temperature_files(root)),
        "temperature_limit_c": temperature_limit_c(root),
        "load1": float(load[0]) if load else None,
        "steal_s": None if stolen_ns is None else stolen_ns / 1e9,
        "pressure_cpu_pct": float(pressure.group(1)) if pressure else None,
        "cgroup_quota": cgroup_quota(root),
        "allowed_cores": cores,
        "memory_available_mib": memory_mib(root, "MemAvailable"),
        "disk_free_mib": shutil.disk_usage(work).free // 2**20,
    }
