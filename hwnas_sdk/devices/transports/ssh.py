"""A shell on a board over SSH: one connection, as many commands as needed.

Closing a channel does not stop what runs on the board, so a command with a limit runs there under
`timeout`, and a lost connection says nothing about what the board goes on doing.
"""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.base import Channel
from hwnas_sdk.devices.transports.shell import (
    BoardShell,
    Completed,
    OutputTooLargeError,
    check_output,
    too_much_output,
)
from hwnas_sdk.devices.transports.ssh_link import close_quietly, connect, load_paramiko
from hwnas_sdk.devices.transports.ssh_target import SshTarget

if TYPE_CHECKING:
    import paramiko

_LOG = logging.getLogger(__name__)

_MARK = "hwnas-begin"
_NOISE_LIMIT = 2**20
_CHUNK = 2**15
_TICK_S = 0.5
"""How often a wait looks at standard error and the clock; data wakes it at once."""
_DRAIN_CHUNKS = 64
_TAIL_BYTES = 4096
_OPEN_S = 15.0
_MARGIN_S = 10.0
"""What the host waits longer than the board's own limit."""


class SshShell(BoardShell):
    """Runs commands on the server of `target`; connects on first use and again when it must.

    Attributes:
        n_connections, n_commands: so far, for tests and reports.
    """

    def __init__(self, target: SshTarget, *, device_id: str) -> None:
        self.device_id = device_id
        self.target = target
        self.n_connections = 0
        self.n_commands = 0
        self._transport: paramiko.Transport | None = None
        self._limiter: str | None = None
        self._lock = threading.Lock()

    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout_s: float = 30.0
    ) -> Completed:
        """Run `command` to its end; see `BoardShell.run`."""
        started_s = time.monotonic()
        raw = self._execute(self._limited(command, timeout_s))
        try:
            chunks = (stdin,) if isinstance(stdin, bytes) else stdin
            done = _Exchange(raw, self).run(chunks, Deadline.after(timeout_s + _MARGIN_S))
        except OutputTooLargeError as exc:
            raise too_much_output(self.device_id, command) from exc
        finally:
            close_quietly(raw)
        if done is None:
            self._fail_deadline(command, timeout_s)
        late = time.monotonic() - started_s >= timeout_s
        if late and done.status in {124, -9}:
            self._fail_deadline(command, timeout_s)
        return done

    def open(self, command: str) -> SshChannel:
        """Start a long-lived `command`; see `BoardShell.open`."""
        script = f"LC_ALL=C; export LC_ALL; echo {_MARK}; {command}"
        return SshChannel(self._execute(f"exec sh -c {shlex.quote(script)}"), self)

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands, as far as anybody knows."""
        transport = self._transport
        return transport is not None and transport.is_active()

    def lost(self, what: str = "was lost") -> DeviceError:
        """The error for a connection that broke while in use."""
        return DeviceError(
            f"the link to {self.device_id!r} ({self.target.address}) {what}",
            device_id=self.device_id,
            code="link_lost",
            hint="what runs on the board goes on; the same command continues",
            retryable=True,
        )

    def learn(self, word: str) -> None:
        """Take note of how the board limits commands: what stands behind the mark."""
        if self._limiter is None and word in {"timeout", "none"}:
            self._limiter = word

    def _execute(self, line: str) -> paramiko.Channel:
        """Open a channel on the connection, made now if there is none, and run `line` in it."""
        paramiko = load_paramiko()
        transport = self._connected()
        try:
            raw = transport.open_session(timeout=_OPEN_S)
            raw.settimeout(_OPEN_S)
            raw.exec_command(line)
        except paramiko.ChannelException as exc:
            raise DeviceError(
                f"{self.device_id!r} refuses another session: {exc.text}",
                device_id=self.device_id,
                code="unreachable",
                hint="raise MaxSessions in its sshd_config, or end other sessions",
                retryable=True,
            ) from exc
        except (paramiko.SSHException, OSError, EOFError) as exc:
            self.close()
            raise self.lost() from exc
        self.n_commands += 1
        return raw

    def _connected(self) -> paramiko.Transport:
        with self._lock:
            if self._transport is not None:
                if self._transport.is_active():
                    return self._transport
                self._transport.close()
                self._transport = None
            self._transport = connect(self.target, device_id=self.device_id)
            self.n_connections += 1
            return self._transport

    def _limited(self, command: str, timeout_s: float) -> str:
        """`command` under the board's own `timeout`, where it has one that knows ``-k``.

        The user's login shell (bash with a talkative .bashrc, fish, ...) reads this line only; the
        mark is where the output of the command begins.
        """
        limited = f'timeout -k 1 {max(1, math.ceil(timeout_s))} sh -c "$1"'
        if self._limiter is None:
            body = (
                f"if timeout -k 1 5 true 2>/dev/null; then echo {_MARK} timeout; {limited}; "
                f'else echo {_MARK} none; sh -c "$1"; fi'
            )
        else:
            run = limited if self._limiter == "timeout" else 'sh -c "$1"'
            body = f"echo {_MARK}; {run}"
        script = f"LC_ALL=C; export LC_ALL; {body}; exit $?"
        return f"exec sh -c {shlex.quote(script)} hwnas {shlex.quote(command)}"

    def _fail_deadline(self, command: str, timeout_s: float) -> NoReturn:
        raise DeviceError(
            f"a command on {self.device_id!r} took more than {timeout_s:.0f} s: "
            f"{' '.join(command.split())[:60]}",
            device_id=self.device_id,
            code="deadline",
            hint="is the board overloaded?",
            retryable=True,
        )


class _Exchange:
    """Feeds one command and collects what it writes."""

    def __init__(self, raw: paramiko.Channel, shell: SshShell) -> None:
        self._raw = raw
        self._shell = shell
        self._out = bytearray()
        self._err = bytearray()

    def run(self, stdin: Iterable[bytes], deadline: Deadline) -> Completed | None:
        """Return how it ended, or None at the deadline. Raises: DeviceError "link_lost"."""
        self._raw.settimeout(_TICK_S)
        try:
            if not self._feed(_pieces(stdin), deadline) or not self._collect(deadline):
                return None
        except (OSError, EOFError) as exc:
            raise self._shell.lost() from exc
        self._raw.status_event.wait(max(deadline.remaining_s, 0.1))
        status = _status_of(self._raw)
        if status is None:
            if not self._shell.is_connected or self._raw.status_event.is_set():
                raise self._shell.lost()
            return None
        noise, mark, output = bytes(self._out).partition(f"{_MARK}".encode())
        word, _, output = output.partition(b"\n")
        if not mark:
            return Completed(status or 255, noise, bytes(self._err))
        self._shell.learn(word.decode().strip())
        return Completed(status, output, bytes(self._err))

    def _feed(self, pieces: Iterator[memoryview], deadline: Deadline) -> bool:
        """Send everything; a command that stops reading is no error. False at the deadline."""
        for piece in pieces:
            left = piece
            while left:
                if deadline.expired:
                    return False
                self._drain()
                if self._raw.exit_status_ready():
                    return True
                try:
                    sent = self._raw.send(left)  # type: ignore[arg-type]  # any buffer will do
                except TimeoutError:
                    continue
                except OSError:
                    if self._shell.is_connected:
                        return True
                    raise
                if not sent:
                    return True
                left = left[sent:]
        self._raw.shutdown_write()
        return True

    def _collect(self, deadline: Deadline) -> bool:
        """Read to the end of both streams; False at the deadline."""
        while not deadline.expired:
            self._drain()
            try:
                data = self._raw.recv(_CHUNK)
            except TimeoutError:
                continue
            if not data:
                while self._raw.recv_stderr_ready():
                    self._err += self._raw.recv_stderr(_CHUNK)
                return True
            self._out += data
        return False

    def _drain(self) -> None:
        # Bounded: a command that never stops talking must not keep us from looking at the clock.
        for _ in range(_DRAIN_CHUNKS):
            if not self._raw.recv_ready():
                break
            self._out += self._raw.recv(_CHUNK)
        for _ in range(_DRAIN_CHUNKS):
            if not self._raw.recv_stderr_ready():
                break
            self._err += self._raw.recv_stderr(_CHUNK)
        check_output(len(self._out) + len(self._err))


class SshChannel(Channel):
    """The pipes of a process on the board."""

    def __init__(self, raw: paramiko.Channel, shell: SshShell) -> None:
        self._raw = raw
        self._shell = shell
        self._buffer = bytearray()
        self._begun = False
        self._ended = False
        self._tail = bytearray()
        raw.settimeout(_TICK_S)

    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`; see `Channel.send`."""
        left = memoryview(data)
        while left:
            try:
                sent = self._raw.send(left)  # type: ignore[arg-type]  # any buffer will do
            except TimeoutError:
                if deadline.expired:
                    raise
                continue
            except (OSError, EOFError) as exc:
                raise BrokenPipeError(str(exc)) from exc
            if not sent:
                raise BrokenPipeError("the channel is closed")
            left = left[sent:]

    def read_line(self, limit_bytes: int) -> bytes:
        """One line, what came before our mark left out; b"" at the end of the stream."""
        while True:
            line = self._read_raw_line(limit_bytes if self._begun else _NOISE_LIMIT)
            if self._begun or not line:
                return line
            self._begun = line.strip() == _MARK.encode()
            if not self._begun:  # what a login shell says may explain why nothing follows
                self._tail += line[-_TAIL_BYTES:]

    def _read_raw_line(self, limit_bytes: int) -> bytes:
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0 or len(self._buffer) >= limit_bytes or self._ended:
                size = min(end + 1 if end >= 0 else len(self._buffer), limit_bytes)
                line = bytes(self._buffer[:size])
                del self._buffer[:size]
                return line
            searched = len(self._buffer)
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._raw.recv(_CHUNK)
        except TimeoutError:
            data = None
        except (OSError, EOFError) as exc:
            _LOG.debug("%s: reading failed: %s", self._shell.device_id, exc)
            data = b""
        while self._raw.recv_stderr_ready():
            self._tail += self._raw.recv_stderr(_CHUNK)
            del self._tail[:-_TAIL_BYTES]
        if data is None:
            return
        self._ended = not data
        self._buffer += data

    @property
    def link_lost(self) -> bool:
        """Whether the stream ended because the connection did."""
        return _status_of(self._raw) is None and not self._raw.get_transport().is_active()

    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Exit status, negative for a signal; None while it runs or when the link was lost."""
        if wait_s > 0.0:
            self._raw.status_event.wait(wait_s)
        return _status_of(self._raw)

    def error_tail(self) -> str:
        """The last lines of standard error."""
        return self._tail.decode(errors="replace").strip()

    def close(self, *, grace_s: float) -> None:
        """Close the input and wait for the process to go; what stays is not ended by this."""
        if not self._raw.closed:
            try:
                self._raw.shutdown_write()
            except (OSError, EOFError) as exc:
                _LOG.debug("%s: closing: %s", self._shell.device_id, exc)
        self.exit_status(wait_s=grace_s)
        close_quietly(self._raw)


def _pieces(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), _CHUNK):
            yield view[start : start + _CHUNK]


def _status_of(raw: paramiko.Channel) -> int | None:
    """Exit status as the shell gave it (128 + n is signal n); None while unknown."""
    status: int = raw.exit_status
    if status < 0:
        return None
    return 128 - status if 128 < status <= 128 + 64 else status
