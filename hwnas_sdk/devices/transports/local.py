"""The board is this machine: the agent is a child process, files are linked or copied."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.base import Channel, Transport, artifact_name

_LOG = logging.getLogger(__name__)
_TAIL_BYTES = 4096


class LocalChannel(Channel):
    """Pipes of a child process.

    The child has its own session, so a Ctrl-C in the terminal reaches the host only, which then
    asks the agent to cancel. Its standard error is a file without a name: an agent that outlives
    the host can go on writing there.
    """

    def __init__(self, command: Sequence[str], *, device_id: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as exc:
            self._errors.close()
            raise DeviceError(
                f"the agent of {device_id!r} cannot be started: {exc}",
                device_id=device_id,
                code="agent_not_started",
                hint="check the interpreter named in the device's URI",
            ) from exc
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[bytes] = self._process.stdin
        self._stdout: IO[bytes] = self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)

    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`; see `Channel.send`."""
        if self._stdin.closed:
            raise BrokenPipeError("the pipe is closed")
        descriptor = self._stdin.fileno()
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [descriptor], [], deadline.remaining_s)
            if not writable:
                raise TimeoutError("the agent does not read its input")
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(descriptor, view) :]

    def read_line(self, limit_bytes: int) -> bytes:
        """One line; b"" at the end. The reading thread owns the pipe and closes it there."""
        if self._stdout.closed:
            return b""
        line = self._stdout.readline(limit_bytes)
        if not line.endswith(b"\n"):
            self._stdout.close()
        return line

    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if wait_s > 0.0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
        return self._process.poll()

    def error_tail(self) -> str:
        """The last lines of standard error."""
        if self._errors.closed:
            return ""
        descriptor = self._errors.fileno()
        size = os.fstat(descriptor).st_size
        raw = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return raw.decode(errors="replace").strip()

    def close(self, *, grace_s: float) -> None:
        """Close the input, wait, then kill the agent's process group."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self.exit_status(wait_s=grace_s) is None:
            _LOG.warning("the agent (pid %d) did not end, killing it", self._process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        return self._process.pid


class LocalTransport(Transport):
    """A work folder on this machine and a command that starts the agent in it."""

    def __init__(self, work_dir: Path, command: Sequence[str], *, device_id: str) -> None:
        """Keep where and how.

        Args:
            work_dir: the agent's work folder; created.
            command: full command line of the agent.
            device_id: for error messages.
        """
        self._work_dir = work_dir
        self._artifacts = work_dir / "artifacts"
        self._command = tuple(command)
        self._device_id = device_id
        self._checked: set[str] = set()

    def start(self) -> LocalChannel:
        """Start the agent as a child process."""
        try:
            self._artifacts.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._error(exc, self._artifacts) from exc
        return LocalChannel(self._command, device_id=self._device_id)

    def push(self, source: Path, sha256: str) -> str:
        """Link or copy `source` to ``artifacts/<sha256>.<suffix>``; see `Transport.push`."""
        target = self._artifacts / artifact_name(source, sha256)
        relative = f"artifacts/{target.name}"
        if target.name in self._checked and target.is_file():
            return relative
        try:
            if not (target.is_file() and _sha256_file(target) == sha256):
                if _sha256_file(source) != sha256:
                    raise DeviceError(
                        f"the file {source.name} is not what its hash says",
                        device_id=self._device_id,
                        code="artifact_corrupt",
                        hint="export the network again",
                    )
                self._place(source, target)
        except FileNotFoundError as exc:
            raise DeviceError(
                f"the artifact {source} is gone",
                device_id=self._device_id,
                code="artifact_missing",
                hint="export the network again",
            ) from exc
        except OSError as exc:
            raise self._error(exc, target) from exc
        self._checked.add(target.name)
        return relative

    def forget_pushed(self) -> None:
        """Hash files on the board again before the next push."""
        self._checked.clear()

    def _place(self, source: Path, target: Path) -> None:
        """Link `source` to `target`, or copy where links are impossible; atomic either way."""
        self._artifacts.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        scratch.unlink(missing_ok=True)
        try:
            try:
                os.link(source, scratch)
            except OSError as exc:
                if exc.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                    raise
                shutil.copyfile(source, scratch)
            scratch.replace(target)
        finally:
            # rename() of two links to one file is defined to do nothing, not even unlink.
            scratch.unlink(missing_ok=True)

    def _error(self, exc: OSError, path: Path) -> DeviceError:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        return DeviceError(
            f"the work folder of {self._device_id!r} cannot be written: {path}: {exc.strerror}",
            device_id=self._device_id,
            code="no_space" if full else "deploy_failed",
            hint="free some space: hwnas devices clean" if full else "check the folder's owner",
        )


def _sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
