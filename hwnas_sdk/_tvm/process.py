"""The child in which TVM runs, seen from the host: requests with a deadline, crashes as errors."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Self

from hwnas_sdk.core.errors import ExportError

_CHILD = "hwnas_sdk._tvm.child"


class TvmProcess:
    """Starts the child with the first request and keeps it: importing TVM takes seconds.

    After a crash or a timeout the next request starts a new one. A context manager.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """Prepare; nothing is started. `command` runs instead of the child, for tests."""
        self._command = list(command or [sys.executable, "-m", _CHILD])
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def request(self, do: str, *, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Let the child do something and return what it found.

        Raises: ExportError: what the child reported, "tvm_crashed", or "tvm_timeout".
        """
        process = self._started()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the missing reply says what happened
            process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            process.stdin.flush()
        line = self._read_line(time.monotonic() + timeout_s)
        if line is None:
            self._kill()
            raise ExportError(
                f"TVM did not finish within {timeout_s:.0f} s and was stopped",
                code="tvm_timeout",
                hint="the machine may be busy; give the command again",
                retryable=True,
            )
        if not line:
            raise self._crash(process)
        reply: Mapping[str, Any] = json.loads(line)
        error = reply.get("error")
        if error is not None:
            raise ExportError(error["message"], code=error["code"], hint=error["hint"])
        return dict(reply["ok"])

    def close(self) -> None:
        """End the child."""
        process = self._process
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                process.kill()
        self._kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - read after a crash
            # Compiling needs no thread pool; candidates of a tuning run are timed on one thread.
            environment = {"TVM_NUM_THREADS": "1", **os.environ}
            # Else the first import compiles an extension for torch into the user's cache folder.
            environment["TVM_FFI_DISABLE_TORCH_C_DLPACK"] = "1"
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
        return self._process

    def _read_line(self, end_s: float) -> bytes | None:
        """Return a reply, b"" when the child ended, None when time is over."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
                return None
            part = os.read(descriptor, 65536)
            if not part:
                return b""
            line += part
        return line

    def _crash(self, process: subprocess.Popen[bytes]) -> ExportError:
        code = process.wait()
        said = self._last_words()
        self._kill()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return ExportError(
            f"the process that runs TVM {how}{said}",
            code="tvm_crashed",
            hint="measure the network with --runtime ort; the crash is TVM's",
        )

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:200]}" if lines else ""

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._log is not None:
            self._log.close()
            self._log = None
