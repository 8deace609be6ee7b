"""Child processes that cannot outlive their purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Callable

from device_agents.agent import protocol

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> bool:
    """Linux only; False where it is not to be had."""
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before we asked
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent ended, so that they can be waited for."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def exit_text(status: int) -> str:
    """Say how a process ended, given `Popen.returncode` (negative: a signal)."""
    if status >= 0:
        return "ended with exit status %d" % status
    try:
        return "was ended by " + signal.Signals(-status).name
    except ValueError:
        return "was ended by signal %d" % -status


class Worker:
    """The measuring process and its two pipes, in a process group of its own.

    Start it from the main thread: the kernel's parent-death signal watches the starting thread.
    """

    def __init__(self, command: list[str], on_message: Callable[[Any, Any], None]) -> None:
        """Start `command`; `on_message(self, object)` is called in a thread, at the end None."""
        env = dict(os.environ)
        # Thread pools of numpy's libraries would only cost memory, and threads do not survive fork.
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            env[name] = "1"
        # ONNX Runtime would write a telemetry database and keep a thread beside the timed blocks.
        env["ORT_DISABLE_TELEMETRY"] = "1"
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        self.ready = None  # type: dict[str, Any] | None
        self.runtime = ""  # set by who starts it, as is the time by which it has to be ready
        self.limit_s = 0.0
        self._on_message = on_message
        threading.Thread(target=self._read, name="worker", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id, also of the group."""
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Write a message without waiting for the worker to read it."""
        line = protocol.encode(message)
        threading.Thread(target=self._write, args=(line,), daemon=True).start()

    def kill(self, timeout_s: float = 10.0) -> int:
        """Kill the whole group, wait until it is gone; returns the exit status.

        Raises: RuntimeError when it is not gone in time (a process stuck in the kernel).
        """
        end_s = time.monotonic() + timeout_s
        self._signal_group()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError("process group %d cannot be killed" % self.pid) from None
        while True:
            self._signal_group()
            try:
                pid, _ = os.waitpid(-self.pid, os.WNOHANG)
            except ChildProcessError:
                break  # none left
            if pid == 0:
                if time.monotonic() > end_s:
                    raise RuntimeError("process group %d cannot be killed" % self.pid)
                time.sleep(0.002)
        return int(self._process.returncode)

    def _signal_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody left in it
            os.killpg(self.pid, signal.SIGKILL)

    def _write(self, line: bytes) -> None:
        try:
            self._process.stdin.write(line)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except (OSError, ValueError):
            pass  # it ended; the reading thread reports that

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for line in iter(stream.readline, b""):
            try:
                message = json.loads(line.decode("utf-8"))
            except ValueError:
                sys.stderr.write("hwnas-agent: half a message from the worker\n")
                continue
            self._on_message(self, message)
        self._on_message(self, None)
