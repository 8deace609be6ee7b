"""What the processor is called, and whether it is a real one."""

from __future__ import annotations

import os
import platform
import re

from device_agents.agent import facts

X86_NAMES = ("x86_64", "amd64", "i386", "i586", "i686")
_VIRTUAL_VENDORS = re.compile(
    r"qemu|kvm|vmware|virtualbox|innotek|xen|bochs|parallels|amazon ec2|google compute|"
    r"openstack|virtual machine|bhyve|digitalocean|hetzner vserver",
    re.IGNORECASE,
)


def processor_name(root: str) -> str:
    """Name of the processor (or of the board, where only that is known)."""
    text = facts.read(root, "proc/cpuinfo") or ""
    for key in ("model name", "Model", "Hardware"):
        found = re.search(r"^%s\s*:\s*(.+)$" % key, text, re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return facts.read(root, "proc/device-tree/model") or platform.processor() or "unknown"


def kind(root: str, arch: str, child_pid: int | None = None) -> str:
    """Return "emulated" (another instruction set, in software), "virtualised" or "bare".

    Args:
        root: of the file system.
        arch: as `platform.machine` says.
        child_pid: a child process of ours, looked at for an emulator.
    """
    text = facts.read(root, "proc/cpuinfo") or ""
    if arch.lower() not in X86_NAMES and re.search(r"^vendor_id\s*:", text, re.MULTILINE):
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
