"""`Board`: one emulated board, and what can be done to it.

Tests use it as a context manager, the command line attaches to boards by number.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

from . import net, state
from .disk import USER_ID, Disk, prepare
from .host import register_interpreter, unavailable
from .image import layer_paths
from .processes import BoardProcess, board_processes
from .recipe import HERE
from .shell import BoardError, run

USER = "pi"
ADB_PORT = 5555
USER_IDS = {"root": "0:0", USER: f"{USER_ID}:{USER_ID}"}
CLOCK_LIBRARY = "/usr/local/lib/libboardclock.so"


class Board:
    """An emulated aarch64 Debian board with its own network, processes, clock and disk."""

    def __init__(
        self,
        *,
        adb: bool = True,
        ready: bool = False,
        cpufreq: bool = False,
        disk_mib: int = 3072,
        number: int | None = None,
        owned: bool = True,
    ) -> None:
        """Describe a board; `start` (or ``with``) makes it.

        Args:
            adb: start adbd too.
            ready: ONNX Runtime is there for the system's Python; otherwise a bare Debian.
            cpufreq: a stand-in for cpufreq, so that a governor can be set and restored.
            disk_mib: size of the disk, on memory, taken as it is used.
            number: which board; None takes the lowest free one.
            owned: the board ends with this process, at the latest when the tool is used again.
        """
        self._adb = adb
        self._ready = ready
        self._cpufreq = cpufreq
        self._disk_mib = disk_mib
        self._owned = owned
        self._number = number
        self._booted: subprocess.Popen[bytes] | None = None

    @classmethod
    def attach(cls, number: int) -> Board:
        """The running board `number`. Raises: BoardError when there is none."""
        record = state.read(number)
        if record is None:
            raise BoardError(f"there is no board {number}: python tools/qemu_board start")
        return cls(
            adb=record.adb, ready=record.ready, cpufreq=record.cpufreq, disk_mib=record.disk_mib,
            number=number, owned=False,
        )  # fmt: skip

    # --- what others need to know ---------------------------------------------------------------

    @property
    def number(self) -> int:
        """Number of the board."""
        if self._number is None:
            raise BoardError("the board is not started")
        return self._number

    @property
    def address(self) -> str:
        """IPv4 address of the board."""
        return net.addresses(self.number)[1]

    @property
    def folder(self) -> Path:
        """Folder of the board on the host."""
        return state.folder(self.number)

    @property
    def key_file(self) -> Path:
        """Private key that opens the accounts `pi` and `root`."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """File in OpenSSH's format with the board's host key."""
        return self.folder / "known_hosts"

    @property
    def ssh_uri(self) -> str:
        """Address for ``hwnas devices add``."""
        return f"ssh://{USER}@{self.address}?identity={self.key_file}"

    @property
    def adb_serial(self) -> str:
        """Serial number after ``adb connect``."""
        return f"{self.address}:{ADB_PORT}"

    @property
    def adb_uri(self) -> str:
        """Address for ``hwnas devices add``."""
        return f"adb://{self.adb_serial}"

    @property
    def console(self) -> str:
        """What boot, sshd and adbd wrote."""
        try:
            return (self.folder / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def ssh_command(self, *words: str, user: str = USER) -> list[str]:
        """Command line of the plain ssh client."""
        return ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
                "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes",
                "-i", str(self.key_file), f"{user}@{self.address}", *words]  # fmt: skip

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the board and boot it; returns when sshd answers.

        Raises: BoardError when this host cannot, or the board is not built.
        """
        reason = unavailable()
        if reason:
            raise BoardError(reason)
        layers = layer_paths(runtime=self._ready)
        register_interpreter()
        reap()
        with state.locked():
            taken = set(state.numbers()) | net.numbers_present()
            if self._number is None:
                self._number = next(n for n in range(1, net.MAX_BOARDS + 1) if n not in taken)
            elif state.read(self._number) is not None and self.is_on:
                return
            else:
                _remove(self._number)
            net.addresses(self._number)
            self.folder.mkdir(mode=0o755, parents=True)
            state.write(self._record())
        try:
            (self.folder / "layers").write_text(":".join(str(path) for path in layers))
            self._disk.create()
            prepare(self.folder, number=self.number, address=self.address, user=USER,
                    adb=self._adb, cpufreq=self._cpufreq)  # fmt: skip
            net.create(self.number)
            self.power_on()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the board and remove everything of it. Fine when it is gone already."""
        if self._number is None:
            return
        with state.locked():
            _remove(self._number)
        self._collect()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    @property
    def has_owner(self) -> bool:
        """Whether the board belongs to a running process."""
        record = state.read(self.number)
        return record is not None and record.owner_pid != 0

    @property
    def is_on(self) -> bool:
        """Whether the board runs."""
        return self._first_process() is not None

    def power_off(self) -> None:
        """Cut the power: no process lives on, no connection is closed; the disk stays."""
        if net.namespace(self.number) in net.present():
            net.set_link(self.number, up=False)
            net.kill_all(self.number)
        self._collect()
        _until(lambda: not self.processes(), 10.0, f"board {self.number} does not end")

    def power_on(self, *, wait_s: float = 60.0) -> None:
        """Boot; returns when sshd answers, and adbd if it has one. Fine when the board is on."""
        if self.is_on:
            return
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "pid").unlink(missing_ok=True)
        # The board's monotonic clock starts over, as after a real boot.
        shift_s = 10 - int(float(Path("/proc/uptime").read_text().split()[0]))
        command = [
            "nsenter", f"--net=/run/netns/{net.namespace(self.number)}",
            "unshare", "--mount", "--pid", "--uts", "--ipc", "--time", "--fork", "--kill-child",
            f"--monotonic={shift_s}", f"--boottime={shift_s}",
            "sh", str(HERE / "boot.sh"), str(self.folder), (self.folder / "layers").read_text(),
        ]  # fmt: skip
        with (self.folder / "console.log").open("ab") as log:
            self._booted = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/", env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        net.set_link(self.number, up=True)
        self._wait_for_sshd(wait_s)
        if self._adb:
            _until(self._takes_adb, wait_s, f"board {self.number}: adbd does not listen")

    def _takes_adb(self) -> bool:
        self._check_booting()
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.address, ADB_PORT), timeout=5.0),
        ):
            return True
        return False

    def _check_booting(self) -> None:
        if self._booted is not None and self._booted.poll() is not None:
            last = self.console.strip().splitlines()[-1:]
            raise BoardError(f"board {self.number} did not boot: {' '.join(last)}")

    def _wait_for_sshd(self, wait_s: float) -> None:
        def answers() -> bool:
            self._check_booting()
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, 22), timeout=5.0) as link,
            ):
                return link.recv(4) == b"SSH-"
            return False

        _until(answers, wait_s, f"board {self.number}: sshd does not answer")

    def _collect(self) -> None:
        """Wait for the process that booted the board, when it is ours, so it is no zombie."""
        if self._booted is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._booted.wait(10)

    # --- what can be done to it -----------------------------------------------------------------

    def link_down(self) -> None:
        """Unplug the network cable."""
        net.set_link(self.number, up=False)

    def link_up(self) -> None:
        """Plug the network cable."""
        net.set_link(self.number, up=True)

    @property
    def link_is_up(self) -> bool:
        """Whether the cable is plugged."""
        return net.link_is_up(self.number)

    def fill_disk(self, *, leave_kib: int = 0) -> None:
        """Make the board's disk full, but for `leave_kib`."""
        self._disk.fill(leave_kib=leave_kib)

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        self._disk.free()

    def set_clock(self, offset_s: int) -> None:
        """Let the board's wall clock be wrong by `offset_s`.

        From the first call on it reaches every process started since, later changes at once. File
        times stay the host's.
        """
        root = self._root()
        target = root / CLOCK_LIBRARY.lstrip("/")
        offset = root / "var/lib/board-clock"
        if not offset.exists():
            offset.write_bytes(struct.pack("<q", offset_s))
        with offset.open("r+b") as stream:
            stream.write(struct.pack("<q", offset_s))
        if not target.exists():
            compiled = self.folder / "clock.so"
            run(["aarch64-linux-gnu-g++", "-x", "c", "-O2", "-shared", "-fPIC", "-o", compiled,
                 HERE / "clock.c"])  # fmt: skip
            shutil.copyfile(compiled, target)
            (root / "etc/ld.so.preload").write_text(f"{CLOCK_LIBRARY}\n")

    def run(
        self, command: str, *, user: str = "root", check: bool = True, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the board, past its network.

        Raises: BoardError when it fails and `check` is set.
        """
        home = "/root" if user == "root" else f"/home/{user}"
        return run(
            [*self._enter(), "chroot", f"--userspec={USER_IDS[user]}", self.folder / "root",
             "/usr/bin/env", "-i", f"HOME={home}", f"USER={user}", "LANG=C.UTF-8",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             "/bin/sh", "-c", f"cd; {command}"],
            check=check, timeout_s=timeout_s,
        )  # fmt: skip

    def processes(self) -> list[BoardProcess]:
        """What users started on the board: every process but init, sshd and adbd."""
        return [entry for entry in self.all_processes() if not entry.is_furniture]

    def all_processes(self) -> list[BoardProcess]:
        """Every process on the board."""
        return board_processes(net.processes(self.number))

    def ssh_logins(self) -> int:
        """How many SSH connections were let in since the board was made."""
        return self.console.count("Accepted publickey for ")

    def ssh_commands(self) -> int:
        """How many commands were started over SSH since the board was made."""
        return self.console.count("Starting session: command for ")

    def kill(self, pattern: str, *, signal_number: int = signal.SIGKILL) -> int:
        """Signal the processes whose command line contains `pattern`; returns how many."""
        count = 0
        for entry in self.all_processes():
            if not entry.is_init and pattern in entry.command:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.host_pid, signal_number)
                    count += 1
        return count

    def kill_sshd(self) -> int:
        """Kill the listening sshd and all its connections; init starts it again after a second."""
        return self.kill("sshd")

    def governors(self) -> list[str]:
        """The governor of each core (stand-in); empty without one."""
        folder = self._root() / "sys/devices/system/cpu"
        return [
            path.read_text().strip()
            for path in sorted(folder.glob("cpu*/cpufreq/scaling_governor"))
        ]

    # --- details --------------------------------------------------------------------------------

    def _record(self) -> state.Record:
        owner_pid = os.getpid() if self._owned else 0
        return state.Record(
            number=self.number,
            adb=self._adb,
            ready=self._ready,
            cpufreq=self._cpufreq,
            disk_mib=self._disk_mib,
            owner_pid=owner_pid,
            owner_start=state.start_time(owner_pid),
        )

    @property
    def _disk(self) -> Disk:
        return Disk(self.folder / "disk", size_mib=self._disk_mib)

    def _first_process(self) -> int | None:
        """Host id of the board's PID 1; None when it is off."""
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in net.processes(self.number) else None

    def _root(self) -> Path:
        """The board's file system, seen from the host."""
        pid = self._first_process()
        if pid is None:
            raise BoardError(f"board {self.number} is off")
        return Path(f"/proc/{pid}/root") / str(self.folder / "root").lstrip("/")

    def _enter(self) -> list[str]:
        pid = self._first_process()
        if pid is None:
            raise BoardError(f"board {self.number} is off")
        return ["nsenter", f"--target={pid}", "--mount", "--pid", "--uts", "--ipc", "--net",
                "--time", "--"]  # fmt: skip


def reap() -> list[int]:
    """Remove boards whose owner ended without stopping them, and parts of half-made ones."""
    gone = []
    with state.locked():
        for number in sorted(set(state.numbers()) | net.numbers_present()):
            record = state.read(number)
            if record is None or state.owner_is_gone(record):
                _remove(number)
                gone.append(number)
    return gone


def numbers() -> list[int]:
    """Numbers of the boards on this machine."""
    return [number for number in state.numbers() if state.read(number) is not None]


def _remove(number: int) -> None:
    """Remove everything of a board; call with the lock held."""
    net.remove(number)
    folder = state.folder(number)
    Disk(folder / "disk", size_mib=0).remove()
    shutil.rmtree(folder, ignore_errors=True)


def _until(is_so: Callable[[], bool], wait_s: float, message: str) -> None:
    """Wait until `is_so`. Raises: BoardError with `message` after `wait_s`."""
    end_s = time.monotonic() + wait_s
    while not is_so():
        if time.monotonic() > end_s:
            raise BoardError(f"{message} after {wait_s:.0f} s")
        time.sleep(0.1)
