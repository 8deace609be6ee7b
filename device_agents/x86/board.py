"""What an x86 machine is, whether it is a real one, and whether it throttled."""

from __future__ import annotations

import glob
import os
import platform
import re
from typing import Any

from device_agents.agent import facts

FAMILY = "x86"
_X86_NAMES = ("x86_64", "amd64", "i386", "i586", "i686")
_VIRTUAL_VENDORS = re.compile(
    r"qemu|kvm|vmware|virtualbox|innotek|xen|bochs|parallels|amazon ec2|google compute|"
    r"openstack|virtual machine|bhyve|digitalocean|hetzner vserver",
    re.IGNORECASE,
)


def describe(root: str, child_pid: int | None = None) -> dict[str, Any]:
    """Return the "device" part of a probe.

    Args:
        root: of the file system.
        child_pid: a child process of ours, looked at for an emulator.
    """
    soc = _cpu_model(root)
    arch = platform.machine()
    return {
        "family": FAMILY if arch.lower() in _X86_NAMES else arch,
        "soc": soc,
        "arch": arch,
        "cores": os.cpu_count() or 1,
        "memory_mib": facts.memory_mib(root) or 0,
        "machine": machine_kind(root, arch, child_pid),
        "os": facts.os_name(root),
        "kernel": platform.release(),
        "hostname_hash": facts.sha16(platform.node()),
        "fingerprint": facts.identity(root, soc),
    }


def machine_kind(root: str, arch: str, child_pid: int | None = None) -> str:
    """Return "emulated" (another instruction set, in software), "virtualised" or "bare"."""
    text = facts.read(root, "proc/cpuinfo") or ""
    if arch.lower() not in _X86_NAMES and re.search(r"^vendor_id\s*:", text, re.MULTILINE):
        return "emulated"  # qemu-user shows the host's cpuinfo to a foreign program
    # qemu-user answers for "self"; other processes under it show what really runs: qemu.
    for pid in [child_pid, *_ancestors(root)]:
        if pid and _runs_qemu_user(root, pid):
            return "emulated"
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags and "hypervisor" in flags.group(1).split():
        return "virtualised"
    if facts.read(root, "sys/hypervisor/type"):
        return "virtualised"
    for name in ("sys_vendor", "product_name", "bios_vendor"):
        if _VIRTUAL_VENDORS.search(facts.read(root, "sys/class/dmi/id/" + name) or ""):
            return "virtualised"
    return "bare"


def throttle_count(root: str, cores: list[int]) -> int | None:
    """Thermal throttling events of `cores` and their packages since boot."""
    total = None
    for core in cores:
        pattern = "sys/devices/system/cpu/cpu%d/thermal_throttle/*_throttle_count" % core
        for path in glob.glob(os.path.join(root, pattern)):
            value = facts.read_int("", path)
            if value is not None:
                total = (total or 0) + value
    return total


def _cpu_model(root: str) -> str:
    text = facts.read(root, "proc/cpuinfo") or ""
    for key in ("model name", "Model", "Hardware"):
        found = re.search(r"^%s\s*:\s*(.+)$" % key, text, re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return facts.read(root, "proc/device-tree/model") or platform.processor() or "unknown"


def _ancestors(root: str) -> list[int]:
    """Process ids of our parents, nearest first."""
    pids = []  # type: list[int]
    pid = os.getppid()
    while pid > 0 and len(pids) < 32:
        pids.append(pid)
        stat = facts.read(root, "proc/%d/stat" % pid)
        if stat is None:
            break
        # The name before it may hold spaces and brackets.
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids


def _runs_qemu_user(root: str, pid: int) -> bool:
    try:
        program = os.path.basename(os.readlink(os.path.join(root, "proc/%d/exe" % pid)))
    except OSError:
        words = (facts.read(root, "proc/%d/cmdline" % pid) or "").split("\0")
        program = os.path.basename(words[0])
    return program.startswith("qemu-") and not program.startswith("qemu-system")
