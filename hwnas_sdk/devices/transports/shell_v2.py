"""ADB's shell protocol, version 2: one stream carries input, both outputs and the exit status.

A packet is one byte of kind, four bytes of length (little-endian), then the data.
Source: the protocol of `adbd`, `shell_protocol.h`; tried against the daemon of Debian (34.0.5).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.devices.transports.base import Channel
from hwnas_sdk.devices.transports.shell import Completed, check_output

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BL")
_CHUNK_BYTES = 16 * 1024
_LIMIT_BYTES = 16 * 2**20
"""Longer than any packet of a daemon (1 MiB); beyond it the stream is not this protocol."""
_TAIL_BYTES = 4096


class StreamLostError(Exception):
    """The stream ended before the exit status came, or is not this protocol."""


def packet(kind: int, data: bytes = b"") -> bytes:
    """Return one packet."""
    return _HEADER.pack(kind, len(data)) + data


def stdin_packets(stdin: bytes | Iterable[bytes]) -> Iterator[bytes]:
    """Packets that carry `stdin` and then close it."""
    parts = [stdin] if isinstance(stdin, bytes) else stdin
    for part in parts:
        for start in range(0, len(part), _CHUNK_BYTES):
            yield packet(STDIN, part[start : start + _CHUNK_BYTES])
    yield packet(CLOSE_STDIN)


def status_of(content: bytes) -> int:
    """Exit status in an EXIT packet, negative for a signal (shells and `adbd` add 128)."""
    status = content[0] if content else 255
    return 128 - status if 128 < status < 255 else status


class PacketReader:
    """Takes bytes as they come, gives whole packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the packets that `data` completes. Raises: StreamLostError on nonsense."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if kind > 5 or length > _LIMIT_BYTES:
                raise StreamLostError("the stream is not the shell protocol")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, content


def converse(
    stream: socket.socket, stdin: bytes | Iterable[bytes], *, deadline: Deadline
) -> Completed:
    """Feed `stdin` to the command behind `stream` and collect what it says, to its end.

    Raises: TimeoutError at the deadline, StreamLostError when the stream breaks,
    OutputTooLargeError.
    """
    stream.setblocking(False)
    reader, outputs = PacketReader(), {STDOUT: bytearray(), STDERR: bytearray()}
    packets: Iterator[bytes] | None = stdin_packets(stdin)
    pending = memoryview(b"")
    while True:
        if packets is not None and not pending:
            pending = memoryview(next(packets, b""))
            packets = packets if pending else None
        writers = [stream] if pending else []
        readable, writable, _ = select.select([stream], writers, [], deadline.remaining_s)
        if deadline.expired or not (readable or writable):  # one that never stops talking, too
            raise TimeoutError
        if writable:
            try:
                pending = pending[stream.send(pending) :]
            except BlockingIOError:
                pass
            except OSError:  # nobody reads any more; what it said is still to be had
                packets, pending = None, memoryview(b"")
        if readable:
            for kind, content in reader.feed(_receive(stream)):
                if kind in outputs:
                    outputs[kind] += content
                    check_output(sum(map(len, outputs.values())))
                elif kind == EXIT:
                    status = status_of(content)
                    return Completed(status, bytes(outputs[STDOUT]), bytes(outputs[STDERR]))


def _receive(stream: socket.socket) -> bytes:
    """Some bytes of a stream that has some. Raises: StreamLostError at its end."""
    try:
        data = stream.recv(1 << 16)
    except BlockingIOError:
        return b""
    except OSError as exc:
        raise StreamLostError(f"the stream broke: {exc.strerror or exc}") from exc
    if not data:
        raise StreamLostError("the stream ended without an exit status")
    return data


def send_all(stream: socket.socket, data: bytes, *, deadline: Deadline) -> None:
    """Send all of `data`; another thread may be reading.

    Raises: BrokenPipeError when nobody reads any more, TimeoutError at the deadline.
    """
    view = memoryview(data)
    while view:
        try:
            writable = select.select([], [stream], [], deadline.remaining_s)[1]
            if writable:
                view = view[stream.send(view, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            continue
        except (OSError, ValueError) as exc:  # a closed socket has no number
            raise BrokenPipeError(str(exc)) from exc
        if not writable:
            raise TimeoutError("the command does not read its input")


class ShellV2Channel(Channel):
    """Pipes of a long-lived command. One thread reads, another may send."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._packets = PacketReader()
        self._lines = bytearray()
        self._errors = bytearray()
        self._ended = threading.Event()
        self._status: int | None = None
        self._closed = False

    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`; see `Channel.send`."""
        for start in range(0, len(data), _CHUNK_BYTES):
            self._write(packet(STDIN, data[start : start + _CHUNK_BYTES]), deadline)

    def read_line(self, limit_bytes: int) -> bytes:
        """One line; b"" at the end of the stream."""
        while True:
            end = self._lines.find(b"\n", 0, limit_bytes) + 1
            if end or len(self._lines) >= limit_bytes or self._ended.is_set():
                line = bytes(self._lines[: end or limit_bytes])
                del self._lines[: len(line)]
                return line
            try:
                # A socket shut down by `close` wakes the wait.
                select.select([self._stream], [], [])
                for kind, content in self._packets.feed(_receive(self._stream)):
                    self._take(kind, content)
            except (StreamLostError, OSError, ValueError):
                self._ended.set()

    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Exit status, negative for a signal; None while it runs or when the link broke."""
        if wait_s > 0.0:
            self._ended.wait(wait_s)
        return self._status

    @property
    def link_lost(self) -> bool:
        """Whether the stream ended without an exit status, and not by our doing."""
        return self._ended.is_set() and self._status is None and not self._closed

    def error_tail(self) -> str:
        """The last lines of standard error that arrived."""
        return bytes(self._errors).decode(errors="replace").strip()

    def close(self, *, grace_s: float) -> None:
        """Close the input, wait for the command to go, then leave it: ADB cannot end a process."""
        if self._closed:
            return
        self._closed = True
        if grace_s > 0.0:
            with contextlib.suppress(OSError, TimeoutError):
                self._write(packet(CLOSE_STDIN), Deadline.after(min(grace_s, 1.0)))
            self._ended.wait(grace_s)
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._ended.wait(1.0)
        self._stream.close()
        self._ended.set()

    def _take(self, kind: int, content: bytes) -> None:
        if kind == STDOUT:
            self._lines += content
        elif kind == STDERR:
            self._errors = (self._errors + content)[-_TAIL_BYTES:]
        elif kind == EXIT:
            self._status = status_of(content)
            self._ended.set()

    def _write(self, data: bytes, deadline: Deadline) -> None:
        if self._ended.is_set():
            raise BrokenPipeError("the command has ended")
        send_all(self._stream, data, deadline=deadline)
