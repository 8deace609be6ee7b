"""What the host must offer: root, namespaces, binfmt with the F flag, a few Debian packages."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from .recipe import DEBIAN_KEYRING, HOST_COMMANDS, MACHINE
from .shell import BoardError, run

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Header of an ELF file for aarch64, 64 bit, little endian, executable or shared.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def unavailable() -> str | None:
    """Why no board can run on this host, in one line; None when one can. Changes nothing."""
    reason: str | None = None
    if sys.platform != "linux" or platform.machine() != "x86_64":
        reason = f"the board is emulated on x86-64 Linux only, this is {platform.machine()}"
    elif os.geteuid() != 0:
        reason = "the board needs root (network, mount and PID namespaces)"
    elif missing_packages() and shutil.which("apt-get") is None:
        reason = f"not installed, and there is no apt-get: {', '.join(missing_packages())}"
    elif shutil.which("unshare") is None:
        reason = "unshare (util-linux) is not installed"
    else:
        probe = run(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork",
             "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False,
        )  # fmt: skip
        if probe.returncode != 0:
            reason = f"namespaces are not allowed here: {probe.stderr.strip()}"
        elif not _has_overlay():
            reason = "the kernel has no overlay file system"
        elif not BINFMT.is_dir() and run(["modprobe", "binfmt_misc"], check=False).returncode != 0:
            reason = "the kernel has no binfmt_misc"
    return None if reason is None else f"no emulated board: {reason}"


def missing_packages() -> list[str]:
    """Debian packages whose commands are missing here."""
    missing = {name for command, name in HOST_COMMANDS.items() if shutil.which(command) is None}
    if not DEBIAN_KEYRING.is_file():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def install_packages() -> list[str]:
    """Install what is missing; returns what was. Raises: BoardError when apt-get fails."""
    missing = missing_packages()
    if not missing:
        return []
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes",
               "--no-install-recommends", *missing]  # fmt: skip
    if run(install, check=False, timeout_s=900, env=env).returncode != 0:
        # The lists are missing or old; a source that has nothing to do with us may fail to update.
        run(["apt-get", "update"], check=False, timeout_s=600, env=env)
        run(install, timeout_s=900, env=env)
    if missing_packages():
        raise BoardError(f"still missing after apt-get: {', '.join(missing_packages())}")
    return missing


def register_interpreter() -> None:
    """Let the kernel run aarch64 programs with QEMU, also inside a root without QEMU (flag F).

    Raises: BoardError when the kernel or the container refuses.
    """
    if not (BINFMT / "register").exists():
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT])
    for entry in BINFMT.iterdir():
        if entry.name in {"register", "status"}:
            continue
        text = entry.read_text()
        if is_ours(text):
            return
    interpreter = shutil.which("qemu-aarch64-static")
    if interpreter is None:
        raise BoardError("qemu-aarch64-static is not installed")
    name = f"hwnas-{MACHINE}"
    if (BINFMT / name).exists():
        (BINFMT / name).write_text("-1")
    try:
        (BINFMT / "register").write_text(f":{name}:M::{_MAGIC}:{_MASK}:{interpreter}:OCPF")
    except OSError as exc:
        raise BoardError(f"the kernel refuses the QEMU interpreter: {exc.strerror}") from exc


def is_ours(entry: str) -> bool:
    """Whether a binfmt entry runs aarch64 with an interpreter that stays open (F)."""
    fields = dict(line.split(maxsplit=1) for line in entry.splitlines() if " " in line)
    return (
        entry.startswith("enabled")
        and fields.get("magic", "").startswith("7f454c460201010000000000000000000200b700")
        and "F" in fields.get("flags:", "")
    )


def _has_overlay() -> bool:
    if "overlay" in Path("/proc/filesystems").read_text():
        return True
    return run(["modprobe", "overlay"], check=False).returncode == 0
