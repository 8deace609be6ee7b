"""Protocol v1 on the host's side: one JSON object per line, requests with deadlines, events.

Every wait ends: with an answer, with the end of the stream (``agent_died``, or ``link_lost`` when
only the connection ended), at a deadline (``agent_hung``), or because what arrived is not the
protocol (``agent_protocol``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError, printable
from hwnas_sdk.devices.transports.base import Channel

_LOG = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
LINE_LIMIT_BYTES = 16 * 2**20
"""Longer than any block of samples; a line beyond it is not ours."""

_PING = "ping-"
_PING_PATIENCE_S = 60.0
_SILENT_PINGS = 5

_HINTS: Final[Mapping[str, str]] = {
    "no_space": "free some space there: hwnas devices clean {device}",
    "no_memory": "end other programs there",
    "work_dir": "check the owner of our folder there, or name another one: ?work=DIR in the URI",
    "core_offline": "hwnas devices probe {device} lists the cores that are allowed",
    "not_enough_cpu": "ask for fewer --threads",
    "lease_lost": "the same command continues",
    "lease_unusable": "the message says what to remove there",
    "busy": "the same command continues when that job is over",
}
"""What to do about a refusal, unless the agent says it itself."""

_OTHER_HINT: Final = "the same command tries again; -v says more"

Message = dict[str, Any]


class AgentRefusedError(DeviceError):
    """The agent answered a request with an error.

    Attributes:
        details: the whole answer.
    """

    def __init__(self, message: str, *, device_id: str, reply: Mapping[str, Any]) -> None:
        code = str(reply.get("code") or "agent_error")
        super().__init__(
            message,
            device_id=device_id,
            code=code,
            hint=str(reply.get("hint") or _HINTS.get(code, _OTHER_HINT).format(device=device_id)),
            retryable=bool(reply.get("retryable", False)),
        )
        self.details = dict(reply)


class Wire:
    """Requests, replies and events over one `Channel`.

    A thread moves lines from the channel into a queue, so a chatty agent never blocks on a full
    pipe while the host does something else. Once broken (any error but a refusal), it stays broken.
    """

    def __init__(self, channel: Channel, *, device_id: str, ping_s: float | None = None) -> None:
        """Talk over `channel`.

        Args:
            channel: the agent's pipes.
            device_id: for error messages.
            ping_s: send a sign of life so often, from a thread; None sends none. It tells the
                board that the host is there. When nothing at all is heard for five times as long,
                the link is taken for lost: a cable that was pulled does not say so.
        """
        self._channel = channel
        self._device_id = device_id
        self._sending = threading.Lock()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._events: deque[Message] = deque()
        self._next_id = 1
        self._abandoned: set[int] = set()
        self.broken: DeviceError | None = None
        self._ping_s = ping_s
        self._heard_at_s: float | None = None
        self._mute = False
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read, name="hwnas-wire", daemon=True)]
        if ping_s is not None:
            self._threads.append(
                threading.Thread(target=self._ping, args=(ping_s,), name="hwnas-ping", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def request(self, kind: str, *, timeout_s: float, **fields: Any) -> Message:
        """Send a request and return its reply; events that arrive meanwhile are kept.

        Raises: AgentRefusedError when the agent says no; DeviceError "agent_died", "link_lost",
        "agent_hung" or "agent_protocol" when it says nothing useful.
        """
        self._refuse_when_broken()
        deadline = Deadline.after(timeout_s)
        request_id = self._next_id
        self._next_id += 1
        line = json.dumps({"id": request_id, "type": kind, **fields}, allow_nan=False) + "\n"
        try:
            self._send(line, deadline)
        except BrokenPipeError:
            # What it said last explains why it went: read on to the end of the stream.
            _LOG.debug("%s: pipe closed while sending %s", self._device_id, kind)
        except TimeoutError:
            self._fail_unanswered(f"does not read its input ({kind})")
        except KeyboardInterrupt:
            self.broken = DeviceError(
                f"a request to {self._device_id!r} was cut short", device_id=self._device_id
            )
            raise
        try:
            return self._await_reply(request_id, kind, deadline)
        except KeyboardInterrupt:
            self._abandoned.add(request_id)
            raise

    def join(self, *, timeout_s: float) -> None:
        """Wait for the threads to end; call after the channel was closed."""
        self._over.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def next_event(self, *, timeout_s: float) -> Message | None:
        """Return the next event, or None when there was none in time.

        Raises: DeviceError "agent_died", "link_lost" or "agent_protocol".
        """
        self._refuse_when_broken()
        deadline = Deadline.after(timeout_s)
        while not self._events:
            message = self._receive(deadline)
            if message is None:
                return None
            if message.get("type") == "event":
                self._events.append(message)
            else:
                self._check_abandoned(message, "waiting for events")
        return self._events.popleft()

    def take_events(self) -> list[Message]:
        """All events received so far, without waiting."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def fail_protocol(self, what: str) -> NoReturn:
        """Mark the wire broken because the agent said something impossible.

        Raises: DeviceError "agent_protocol", always.
        """
        self._fail("agent_protocol", what)

    def fail_hung(self, what: str) -> NoReturn:
        """Mark the wire broken because the agent goes on but gets nowhere.

        Raises: DeviceError "agent_hung", always.
        """
        self._fail("agent_hung", what, retryable=True)

    def _await_reply(self, request_id: int, kind: str, deadline: Deadline) -> Message:
        while True:
            message = self._receive(deadline)
            if message is None:
                self._fail_unanswered(f"did not answer {kind!r} in time")
            if message.get("type") == "event":
                self._events.append(message)
                continue
            if message.get("re") != request_id:
                self._check_abandoned(message, f"answering {kind!r}")
                continue
            if message.get("type") == "error":
                text = str(message.get("message") or message.get("code"))
                raise AgentRefusedError(
                    f"{self._device_id!r} refused {kind!r}: {text}",
                    device_id=self._device_id,
                    reply=message,
                )
            return message

    def _check_abandoned(self, message: Message, while_doing: str) -> None:
        """Let late replies to given-up requests pass; anything else out of order is an error."""
        if message.get("re") in self._abandoned:
            self._abandoned.discard(message["re"])
            return
        if message.get("type") == "error":
            self.fail_protocol(
                f"reported while {while_doing}: {message.get('code')}: {message.get('message')}"
            )
        self.fail_protocol(f"answered out of order while {while_doing}: {_short(message)}")

    def _receive(self, deadline: Deadline) -> Message | None:
        """Return the next message, or None at the deadline."""
        message = self._receive_any(deadline)
        while message is not None and str(message.get("re", "")).startswith(_PING):
            message = self._receive_any(deadline)  # an answer nobody waits for
        return message

    def _receive_any(self, deadline: Deadline) -> Message | None:
        try:
            line = self._lines.get(timeout=max(deadline.remaining_s, 1e-3))
        except queue.Empty:
            return None
        if not line.endswith(b"\n"):
            if len(line) >= LINE_LIMIT_BYTES:
                self.fail_protocol("sent a line without end")
            self._died(in_message=bool(line))
        try:
            message = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self.fail_protocol(f"sent something that is not JSON: {_short(line)}")
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("type"), str)
            or not isinstance(message.get("re"), int | str | None)
        ):
            self.fail_protocol(f"sent something that is not a message: {_short(message)}")
        if b"\\u" in line or not line.isascii():
            message = _printable(message)
        return dict(message)

    def _read(self) -> None:
        while True:
            try:
                line = self._channel.read_line(LINE_LIMIT_BYTES)
            except OSError as exc:
                _LOG.debug("%s: reading failed: %s", self._device_id, exc)
                line = b""
            self._heard_at_s = time.monotonic()
            self._lines.put(line)
            if not line.endswith(b"\n"):
                return

    def _ping(self, ping_s: float) -> None:
        number = 0
        while not self._over.wait(ping_s) and self.broken is None:
            if self._silent_s > _SILENT_PINGS * ping_s:
                self._mute = True
                self._lines.put(b"")
                return
            number += 1
            line = json.dumps({"id": f"{_PING}{number}", "type": "ping"}) + "\n"
            try:
                self._send(line, Deadline.after(_PING_PATIENCE_S))
            except BrokenPipeError as exc:  # whoever reads learns what became of the agent
                _LOG.debug("%s: no more pings: %s", self._device_id, exc)
                return
            except TimeoutError:
                # Half of a line may be on its way: nothing that follows could be understood.
                with contextlib.suppress(DeviceError):
                    self._fail_unanswered("does not read its input (ping)")
                return

    def _send(self, line: str, deadline: Deadline) -> None:
        """Write a line, whole; the pings come from another thread."""
        if not self._sending.acquire(timeout=deadline.remaining_s):
            raise TimeoutError("the agent does not read its input")
        try:
            self._channel.send(line.encode(), deadline=deadline)
        finally:
            self._sending.release()

    def _refuse_when_broken(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _died(self, *, in_message: bool) -> NoReturn:
        if self._mute:
            self._fail("link_lost", "has not been heard for too long", retryable=True)
        status = self._channel.exit_status(wait_s=1.0)
        if status is None and self._channel.link_lost:
            self._fail("link_lost", "cannot be heard any more: the link was lost", retryable=True)
        how = "closed its output" if status is None else _describe_exit(status)
        where = " in the middle of a message" if in_message else ""
        self._fail("agent_died", f"{how}{where}", retryable=True)

    @property
    def _silent_s(self) -> float:
        """How long nothing was heard, not even an answer to a ping; 0 before the first answer."""
        return 0.0 if self._heard_at_s is None else time.monotonic() - self._heard_at_s

    def _fail_unanswered(self, what: str) -> NoReturn:
        """A deadline has passed: does the agent hang, or is nothing heard from there at all?"""
        if self._ping_s is not None and self._silent_s > 2.5 * self._ping_s:
            self._fail("link_lost", "has not been heard for too long", retryable=True)
        self._fail("agent_hung", what, retryable=True)

    def _fail(self, code: str, what: str, *, retryable: bool = False) -> NoReturn:
        tail = self._channel.error_tail()
        words = f"; its last words: {_last_line(tail)}" if tail else ""
        hints = {
            "agent_died": "what it finished is kept on the board; the same command continues",
            "agent_hung": "is the board overloaded? the same command continues",
            "agent_protocol": "another program on the board, or another agent version",
            "link_lost": "the board goes on with its job; the same command continues",
        }
        if tail:
            _LOG.debug("%s: standard error of the agent:\n%s", self._device_id, tail)
        self.broken = DeviceError(
            f"the agent on {self._device_id!r} {what}{words}",
            device_id=self._device_id,
            code=code,
            hint=hints[code],
            retryable=retryable,
        )
        raise self.broken


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _printable(value: Any) -> Any:
    """`value` without text that a terminal would obey or that cannot be stored."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {printable(key): _printable(entry) for key, entry in value.items()}
    return value


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""


def _short(value: object, limit: int = 120) -> str:
    text = value.decode(errors="replace").strip() if isinstance(value, bytes) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}..."
