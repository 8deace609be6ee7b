"""The processes on a board, seen from the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_DAEMONS = ("/usr/sbin/sshd", "/usr/lib/android-sdk/platform-tools/adbd")


@dataclass(frozen=True, slots=True)
class BoardProcess:
    """One process.

    Attributes:
        host_pid: its id on the host.
        pid: its id on the board.
        command: its command line, without the emulator's own words.
    """

    host_pid: int
    pid: int
    command: str

    @property
    def is_init(self) -> bool:
        """Whether it is the board's init (or one of the loops that keep a daemon alive)."""
        return "boot.sh" in self.command

    @property
    def is_furniture(self) -> bool:
        """Whether it belongs to the board: init, sshd with its connections, adbd."""
        return self.is_init or self.command.startswith(_DAEMONS)


def board_processes(host_pids: Iterable[int]) -> list[BoardProcess]:
    """Look at processes by their host id; those that end meanwhile are left out."""
    found = []
    for host_pid in host_pids:
        folder = Path(f"/proc/{host_pid}")
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (folder / "status").read_text()
        except OSError:
            continue
        pid = pid_on_board(status)
        if pid is not None:
            found.append(BoardProcess(host_pid, pid, command_line(words)))
    return sorted(found, key=lambda entry: entry.pid)


def pid_on_board(status: str) -> int | None:
    """The innermost id in a ``/proc/PID/status``; None outside of a PID namespace or when dead."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    ids = fields.get("NSpid", "").split()
    if len(ids) < 2 or fields.get("State", "").strip().startswith(("Z", "X")):
        return None
    return int(ids[-1])


def command_line(words: list[str]) -> str:
    """A command line without the emulator: QEMU's is ``qemu-aarch64 PROGRAM ARGV0 ARGV1...``."""
    words = [word for word in words if word]
    if words and "qemu-aarch64" in words[0]:
        program, arguments = words[1:2], words[3:]
        words = program + arguments
    return " ".join(words)
