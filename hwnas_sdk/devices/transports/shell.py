"""Running shell commands on a board: all that SSH and ADB have to offer for everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.base import Channel

OUTPUT_LIMIT_BYTES = 64 * 2**20
"""More than any command of ours has to say; a board that floods us must not take our memory."""


class OutputTooLargeError(Exception):
    """A command said more than `OUTPUT_LIMIT_BYTES`."""


def check_output(n_bytes: int) -> None:
    """Raises: OutputTooLargeError when a command has said too much."""
    if n_bytes > OUTPUT_LIMIT_BYTES:
        raise OutputTooLargeError


def too_much_output(device_id: str, command: str) -> DeviceError:
    """The error for `OutputTooLargeError`."""
    return DeviceError(
        f"a command on {device_id!r} said more than {OUTPUT_LIMIT_BYTES >> 20} MiB: "
        f"{' '.join(command.split())[:60]}",
        device_id=device_id,
        code="output_too_large",
        hint="does its log-in shell or a runner print without end? Try the command by hand",
    )


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
        "link_lost" (retryable), "output_too_large" or "deadline" (the command may still run on
        the board).
        """

    @abstractmethod
    def open(self, command: str) -> Channel:
        """Start a long-lived `command` and return its pipes. Raises: DeviceError as `run`."""

    @abstractmethod
    def close(self) -> None:
        """End the connection. Safe to call twice; the next `run` or `open` connects anew."""
