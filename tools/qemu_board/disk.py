"""A board's writable disk, on memory, and what is written there before the first boot."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from .shell import run

USER_ID = 1000

# A Cortex-A72 as the kernel describes it. Only what a parser of this file needs: no board is named.
_CPUINFO = """\
processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
_CPUFREQ = {
    "scaling_governor": "ondemand",
    "scaling_available_governors": "performance ondemand powersave",
    "scaling_driver": "stand-in",
    "scaling_cur_freq": "1500000",
    "scaling_min_freq": "600000",
    "scaling_max_freq": "1500000",
    "cpuinfo_cur_freq": "1500000",
    "cpuinfo_min_freq": "600000",
    "cpuinfo_max_freq": "1500000",
}


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system of limited size. It outlives the board's processes, so power can be cut.

    Attributes:
        path: where it is mounted on the host.
        size_mib: of the empty disk.
    """

    path: Path
    size_mib: int

    def create(self) -> None:
        """Mount an empty disk with the folders an overlay needs."""
        self.path.mkdir()
        run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={self.size_mib}m", "tmpfs", self.path])
        (self.path / "upper").mkdir(mode=0o755)
        (self.path / "work").mkdir()

    def fill(self, *, leave_kib: int) -> None:
        """Shrink the disk to what is used and `leave_kib`: full, and no memory is taken for it."""
        seen = os.statvfs(self.path)
        used_kib = (seen.f_blocks - seen.f_bfree) * seen.f_frsize // 1024
        run(["mount", "-o", f"remount,size={used_kib + leave_kib}k", self.path])

    def free(self) -> None:
        """Give the disk its size back."""
        run(["mount", "-o", f"remount,size={self.size_mib}m", self.path])

    def remove(self) -> None:
        """Unmount. Fine when it is not mounted."""
        while self.path.is_dir() and os.path.ismount(self.path):
            run(["umount", "--lazy", self.path])


def cpuinfo(cores: int) -> str:
    """The text of ``/proc/cpuinfo`` of an Arm board with `cores` cores."""
    return "\n".join(_CPUINFO.format(core=core) for core in range(cores))


def prepare(
    folder: Path, *, number: int, address: str, user: str, adb: bool, cpufreq: bool
) -> None:
    """Write what makes a board itself: name, keys, machine id, boot options.

    `folder` is the board's; its disk is mounted there.
    """
    name = f"board{number}"
    upper = folder / "disk" / "upper"
    _options(folder, name=name, address=address, adb=adb, cpufreq=cpufreq)
    (folder / "cpuinfo").write_text(cpuinfo(os.cpu_count() or 1))
    if cpufreq:
        _stand_in_cpu(folder / "cpu")
    etc = upper / "etc"
    (etc / "ssh").mkdir(parents=True)
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost {name}\n")
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    for path in (upper, etc, etc / "ssh"):
        path.chmod(0o755)
    host_key = etc / "ssh" / "ssh_host_ed25519_key"
    _make_key(host_key, comment=name)
    public = host_key.with_suffix(".pub").read_text().split()
    (folder / "known_hosts").write_text(f"{address} {public[0]} {public[1]}\n")
    _make_key(folder / "key", comment="hwnas emulated board")
    _authorize(upper / "home" / user, folder / "key.pub", owner=USER_ID)
    _authorize(upper / "root", folder / "key.pub", owner=0)
    (upper / "home").chmod(0o755)


def _options(folder: Path, *, name: str, address: str, adb: bool, cpufreq: bool) -> None:
    lines = {"HOSTNAME": name, "ADDRESS": address, "ADB": int(adb), "CPUFREQ": int(cpufreq)}
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    (folder / "options").write_text(text)


def _make_key(path: Path, *, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def _authorize(home: Path, public_key: Path, *, owner: int) -> None:
    """Let the key open the account; ownership as sshd demands it."""
    ssh = home / ".ssh"
    ssh.mkdir(parents=True)
    shutil.copyfile(public_key, ssh / "authorized_keys")
    for path, mode in ((home, 0o700), (ssh, 0o700), (ssh / "authorized_keys", 0o600)):
        path.chmod(mode)
        os.chown(path, owner, owner)


def _stand_in_cpu(folder: Path) -> None:
    """A folder like ``/sys/devices/system/cpu`` whose cpufreq files can be written by `USER_ID`."""
    cores = os.cpu_count() or 1
    folder.mkdir()
    (folder / "STAND_IN").write_text("plain files of the emulated board, no hardware\n")
    for name in ("online", "possible", "present"):
        (folder / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n")
    for core in range(cores):
        core_folder = folder / f"cpu{core}"
        (core_folder / "cpufreq").mkdir(parents=True)
        (core_folder / "topology").mkdir()
        (core_folder / "cpu_capacity").write_text("1024\n")
        (core_folder / "topology" / "core_id").write_text(f"{core}\n")
        (core_folder / "topology" / "physical_package_id").write_text("0\n")
        for name, value in _CPUFREQ.items():
            (core_folder / "cpufreq" / name).write_text(f"{value}\n")
        governor = core_folder / "cpufreq" / "scaling_governor"
        governor.chmod(0o664)
        os.chown(governor, 0, USER_ID)
