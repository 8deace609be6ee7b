"""Commands on an Android device (or anything that runs `adbd`) through the standard ADB server.

Closing a stream, killing `adb` or pulling the cable does not end a command on the device: whatever
may last carries its own deadline there.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import socket
import threading
from collections.abc import Iterable

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.adb_legacy import LegacyChannel, converse_legacy
from hwnas_sdk.devices.transports.adb_server import AdbServer, AdbTarget
from hwnas_sdk.devices.transports.base import Channel
from hwnas_sdk.devices.transports.shell import (
    BoardShell,
    Completed,
    OutputTooLargeError,
    too_much_output,
)
from hwnas_sdk.devices.transports.shell_v2 import ShellV2Channel, StreamLostError, converse

_LOG = logging.getLogger(__name__)
_CHECK_S = 3.0
LEGACY_FOLDER = "/data/local/tmp"
"""Where every Android lets ADB write."""


class AdbShell(BoardShell):
    """A shell on one device.

    Exit status, standard error and input come through the shell protocol; a daemon without it
    (Android < 7) gets a wrapper around the command, and its long-lived commands have no status.
    """

    def __init__(self, serial: str, *, device_id: str) -> None:
        """Keep which device.

        Args:
            serial: as in `adb devices`, or ``host:port``; empty for the only one attached.
            device_id: for error messages.
        """
        self.device_id = device_id
        self._serial = serial
        self._server = AdbServer(device_id=device_id)
        self._target: AdbTarget | None = None
        self._was_lost = False
        self._lock = threading.Lock()

    @property
    def serial(self) -> str:
        """Serial of the device that answers; finds it on first use. Raises: DeviceError."""
        return self._found().serial

    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout_s: float = 30.0
    ) -> Completed:
        """Run `command` to its end; see `BoardShell.run`."""
        deadline = Deadline.after(timeout_s)
        target = self._found()
        has_status = "shell_v2" in target.features
        try:
            if has_status:
                with self._opened(target, f"shell,v2,raw:{command}") as stream:
                    return converse(stream, stdin, deadline=deadline)
            return self._run_legacy(target, command, stdin, deadline)
        except TimeoutError as exc:
            self._refuse_when_gone(target, exc)
            raise DeviceError(
                f"a command on {self.device_id!r} took longer than {timeout_s:g} s: "
                f"{_short(command)}",
                device_id=self.device_id,
                code="deadline",
                hint="it may still run there; is the device overloaded?",
                retryable=True,
            ) from exc
        except OutputTooLargeError as exc:
            raise too_much_output(self.device_id, command) from exc
        except StreamLostError as exc:
            raise self._lost(exc) from exc

    def open(self, command: str) -> Channel:
        """Start `command` and return its pipes; see `BoardShell.open`."""
        target = self._found()
        if "shell_v2" in target.features:
            return ShellV2Channel(self._open(target, f"shell,v2,raw:{command}"))
        return LegacyChannel(self._open(target, f"exec:{command}"))

    def close(self) -> None:
        """Forget the device; the next call finds it again. The server goes on, it is shared."""
        with self._lock:
            self._target = None

    def _run_legacy(
        self,
        target: AdbTarget,
        command: str,
        stdin: bytes | Iterable[bytes],
        deadline: Deadline,
    ) -> Completed:
        content = stdin if isinstance(stdin, bytes) else b"".join(stdin)
        mark = f"hwnas-{secrets.token_hex(8)}"
        errors = f"{LEGACY_FOLDER}/.{mark}"
        # The stream has no end of input of its own, so the length is told.
        feed = f"head -c {len(content)} | " if content else "</dev/null "
        wrapped = (
            f"{feed}sh -c {shlex.quote(command)} 2>{errors}; r=$?; printf '\\n{mark} %d\\n' $r; "
            f"cat {errors}; rm -f {errors}"
        )
        with self._opened(target, f"exec:{wrapped}") as stream:
            return converse_legacy(stream, content, mark=mark.encode(), deadline=deadline)

    # --- the device ---------------------------------------------------------------------------

    def _found(self) -> AdbTarget:
        with self._lock:
            if self._target is None:
                self._target = self._server.choose(self._serial, fresh=self._was_lost)
                self._was_lost = False
            return self._target

    def _open(self, target: AdbTarget, service: str) -> socket.socket:
        try:
            return self._server.open(target.serial, service)
        except DeviceError:
            self._forget()
            raise

    def _opened(
        self, target: AdbTarget, service: str
    ) -> contextlib.AbstractContextManager[socket.socket]:
        return contextlib.closing(self._open(target, service))

    def _forget(self) -> None:
        with self._lock:
            self._target, self._was_lost = None, True

    def _refuse_when_gone(self, target: AdbTarget, cause: Exception) -> None:
        """Tell a slow command from a dead link. Raises: DeviceError "link_lost" for the latter."""
        if "shell_v2" not in target.features:
            return
        try:
            with self._opened(target, "shell,v2,raw:true") as stream:
                converse(stream, b"", deadline=Deadline.after(_CHECK_S))
        except (TimeoutError, StreamLostError, DeviceError) as exc:
            _LOG.info("%s: no answer to a trivial command: %s", self.device_id, exc)
            raise self._lost(cause) from exc

    def _lost(self, cause: Exception) -> DeviceError:
        self._forget()
        return DeviceError(
            f"the link to {self.device_id!r} broke: {str(cause) or 'no answer'}",
            device_id=self.device_id,
            code="link_lost",
            hint="what was started there goes on; the same command continues",
            retryable=True,
        )


def _short(command: str, limit: int = 80) -> str:
    text = " ".join(command.split())
    return text if len(text) <= limit else f"{text[:limit]}..."
