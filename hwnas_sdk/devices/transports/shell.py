"""Running shell commands on a board: all that SSH and ADB have to offer for everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from hwnas_sdk.devices.transports.base import Channel


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command on the board ended.

    Attributes:
        status: its exit status, negative for a signal.
        stdout, stderr: what it wrote.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, stripped."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def error_line(self) -> str:
        """Last line of standard error (else of standard output), for a message."""
        for raw in (self.stderr, self.stdout):
            lines = [line.strip() for line in raw.decode(errors="replace").splitlines()]
            lines = [line for line in lines if line]
            if lines:
                return lines[-1][:200]
        return f"exit status {self.status}"


class BoardShell(ABC):
    """A connection that runs POSIX shell commands on a board; opened on first use.

    Commands are for a plain `sh` (dash, mksh, busybox), never bash. Ending a connection does not
    end a process on the board: whatever may last carries its own deadline there.

    Attributes:
        device_id: for error messages.
    """

    device_id: str

    @abstractmethod
    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout_s: float = 30.0
    ) -> Completed:
        """Run `command` to its end; `stdin` is streamed to it, then closed.

        Raises: DeviceError "unreachable", "host_key_unknown", "host_key_changed", "auth_failed",
        "link_lost" (retryable) or "deadline" (the command may still run on the board).
        """

    @abstractmethod
    def open(self, command: str) -> Channel:
        """Start a long-lived `command` and return its pipes. Raises: DeviceError as `run`."""

    @abstractmethod
    def close(self) -> None:
        """End the connection. Safe to call twice; the next `run` or `open` connects anew."""
