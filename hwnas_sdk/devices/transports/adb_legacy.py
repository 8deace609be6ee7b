"""Commands through a daemon that lacks the shell protocol (`exec:`, Android 5 and 6).

One stream carries both directions raw; it has neither an exit status nor an end of input, so the
command is wrapped: its length of input is told beforehand, and status and standard error follow its
output behind a marker that nobody can guess. Not tried on such a device (none was at hand), only
against a daemon that has the service `exec:` as well.
"""

from __future__ import annotations

import select
import socket

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.devices.transports.base import Channel
from hwnas_sdk.devices.transports.shell import Completed, check_output
from hwnas_sdk.devices.transports.shell_v2 import StreamLostError, send_all, status_of


def converse_legacy(
    stream: socket.socket, stdin: bytes, *, mark: bytes, deadline: Deadline
) -> Completed:
    """Feed `stdin` to a wrapped command and take its answer apart.

    Raises: TimeoutError at the deadline, StreamLostError when the stream breaks,
    OutputTooLargeError.
    """
    stream.setblocking(False)
    pending, answer = memoryview(stdin), bytearray()
    while True:
        writers = [stream] if pending else []
        readable, writable, _ = select.select([stream], writers, [], deadline.remaining_s)
        if deadline.expired or not (readable or writable):  # one that never stops talking, too
            raise TimeoutError
        try:
            if writable:
                pending = pending[stream.send(pending) :]
            if readable:
                data = stream.recv(1 << 16)
                if not data:
                    break
                answer += data
                check_output(len(answer))
        except BlockingIOError:
            continue
        except OSError as exc:
            raise StreamLostError(f"the stream broke: {exc.strerror or exc}") from exc
    stdout, found, rest = bytes(answer).rpartition(b"\n" + mark + b" ")
    status, newline, stderr = rest.partition(b"\n")
    if not found or not newline or not status.isdigit():
        raise StreamLostError("the stream ended without an exit status")
    return Completed(status_of(bytes([int(status) & 255])), stdout, stderr)


class LegacyChannel(Channel):
    """A raw stream: no standard error, no exit status, input that ends with the connection."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._file = stream.makefile("rb")

    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`; see `Channel.send`."""
        send_all(self._stream, data, deadline=deadline)

    def read_line(self, limit_bytes: int) -> bytes:
        """One line; b"" at the end of the stream."""
        try:
            return self._file.readline(limit_bytes)
        except (OSError, ValueError):
            return b""

    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Unknown: this kind of stream does not carry it."""
        del wait_s
        return None

    def error_tail(self) -> str:
        """Nothing: this kind of stream does not carry it."""
        return ""

    def close(self, *, grace_s: float) -> None:
        """End the connection; the command sees the end of its input."""
        del grace_s
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            self._stream.close()
