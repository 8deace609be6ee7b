"""Protocol v1: error codes, messages in and out. The reference is device_agents/README.md."""

from __future__ import annotations

import errno
import json
import math
import os
import queue
import re
import threading
import traceback
from typing import Any, Callable

VERSION = 1
LINE_LIMIT_BYTES = 16 * 2**20
SENTINEL = "@sentinel"

ERRORS = {
    "bad_request": "the request is not understood; message says which field",
    "protocol_version": "host and agent share no protocol version",
    "board_busy": "another agent holds the lease; holder says who",
    "lease_lost": "the lease given is not (or no longer) this agent's",
    "busy": "this agent runs another job",
    "job_exists": "the board already has a journal of that job",
    "not_enough_cpu": "fewer cores (or less CPU quota) than threads asked for",
    "core_offline": "a core named by affinity is offline or not allowed",
    "no_memory": "too little memory is available to begin",
    "lease_unusable": "the file of the board-wide lease cannot be opened or locked",
    "work_dir": "the work folder cannot be written",
    "no_space": "the board's disk is full",
    "internal": "the agent itself failed; standard error has the details",
}
"""What a request can be answered with."""

ITEM_ERRORS = {
    "artifact_missing": "the file is not on the board",
    "artifact_corrupt": "the file's SHA-256 is not the one asked for",
    "model_invalid": "the runtime cannot parse the file",
    "model_unsupported": "an operator, type or version this runtime does not have",
    "dynamic_shape": "an input has no fixed shape",
    "runtime_missing": "the runtime is not installed in this interpreter",
    "provider_missing": "the runtime was built without an execution provider asked for",
    "provider_fallback": "the session would use another execution provider than asked for",
    "runtime_crashed": "the runtime was ended by a signal",
    "runtime_hung": "the runtime did not finish starting",
    "runtime_error": "the runtime raised an error while loading or running",
    "no_memory": "the board ran out of memory",
    "no_space": "the journal could not be written: the board's disk is full",
    "work_dir": "the journal could not be written",
    "deadline": "the job's deadline passed",
    "cancelled": "the job was cancelled",
    "lease_lost": "another agent took the board",
    "internal": "the agent itself failed; standard error has the details",
}
"""The code of a "failed" event."""

_JOB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


def is_full(exc: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RequestError(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str, *, retryable: bool = False, **extra: Any) -> None:
        super().__init__(message)
        self.reply = {"type": "error", "code": code, "message": message, "retryable": retryable}
        self.reply.update(extra)


def parse(line: bytes) -> dict[str, Any]:
    """Return the request in `line`. Raises: RequestError when it is not one."""
    try:
        message = json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as exc:
        raise RequestError("bad_request", "not a line of JSON: %s" % exc) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise RequestError("bad_request", "not an object with a 'type'")
    request_id = message.get("id")
    if not (request_id is None or isinstance(request_id, (int, str))) or len(str(request_id)) > 200:
        raise RequestError("bad_request", "'id' is no integer or short string")
    return message


def _finite(text: str) -> float:
    """Number of JSON text. Raises: ValueError for what JSON does not know (1e999, NaN)."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("%s is not a finite number" % text[:40])
    return value


def field(message: dict[str, Any], name: str, kinds: Any) -> Any:
    """Return ``message[name]``. Raises: RequestError when it is absent or of another type."""
    value = message.get(name)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise RequestError(
            "bad_request", "%s: %r is missing or has a wrong type" % (message["type"], name)
        )
    return value


def job_name(message: dict[str, Any]) -> str:
    """Return the job a request is about. Raises: RequestError for what is no file name."""
    name = field(message, "job", str)
    if not _JOB.match(name):
        raise RequestError("bad_request", "job: letters, digits, '.', '-', '_', at most 128")
    return str(name)


def encode(message: dict[str, Any]) -> bytes:
    """One line; numbers JSON does not know (NaN) are refused."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


class Output:
    """Writes lines in a thread of its own: a host that stops reading never stops the agent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = queue.Queue()  # type: queue.Queue[bytes | None]
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def send(self, line: bytes) -> None:
        """Write `line` soon."""
        self._lines.put(line)

    def close(self, timeout_s: float) -> None:
        """Write what is left, at most for `timeout_s`."""
        self._lines.put(None)
        self._thread.join(timeout_s)

    def _write(self) -> None:
        lines = iter(self._lines.get, None)
        try:
            for line in lines:
                view = memoryview(line)
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            # The host is gone: the journal has it all. Go on emptying the queue.
            for _ in lines:
                continue


def read_lines(descriptor: int, on_line: Callable[[bytes | None], None]) -> None:
    """Hand each line of `descriptor` to `on_line`, at the end None. Runs until then.

    A line beyond the limit is handed on cut short, so that it is refused, not collected.
    """
    try:
        with os.fdopen(descriptor, "rb") as stream:
            for line in iter(lambda: stream.readline(LINE_LIMIT_BYTES), b""):
                rest = line
                while len(rest) >= LINE_LIMIT_BYTES and not rest.endswith(b"\n"):
                    rest = stream.readline(LINE_LIMIT_BYTES)
                if line.strip():
                    on_line(line)
    except OSError:
        traceback.print_exc()  # a broken link ends the input like any other end
    on_line(None)
