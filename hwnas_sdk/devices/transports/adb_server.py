"""The ADB server on this host: start it, list its devices, choose one, open services on it.

The server is the standard one (`adb start-server`); `adbutils` speaks with it. Its address is
``ANDROID_ADB_SERVER_HOST``/``ANDROID_ADB_SERVER_PORT``, else 127.0.0.1:5037.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from hwnas_sdk.core.errors import ConfigError, DeviceError, HwnasError, MissingExtraError

_LOG = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_PORT = 5037
_REPLY_S = 10.0
_CONNECT_S = 25.0
"""`adb connect` to an address that swallows packets fails after about 10 s."""

_STATES: Final = {
    "unauthorized": (
        "adb_unauthorized",
        "has not allowed this computer to debug it",
        "unlock the screen and accept the question there; then try again",
    ),
    "authorizing": (
        "adb_unauthorized",
        "has not yet allowed this computer to debug it",
        "unlock the screen and accept the question there; then try again",
    ),
    "offline": (
        "adb_offline",
        "is known to the ADB server but does not answer",
        "plug it in again, or: adb disconnect, adb kill-server",
    ),
    "connecting": ("adb_offline", "is still connecting", "try again in a moment"),
    "no": (  # "no permissions (...)": the first word only
        "adb_offline",
        "may not be opened by this user",
        "USB permissions: see developer.android.com/tools/device",
    ),
}


@dataclass(frozen=True, slots=True)
class AdbTarget:
    """A device that answers.

    Attributes:
        serial: its name at the server.
        features: what its daemon can do.
    """

    serial: str
    features: frozenset[str]


class AdbServer:
    """Talks to the server for one device of the inventory."""

    def __init__(self, *, device_id: str) -> None:
        self._device_id = device_id
        self._client: Any = None

    def choose(self, serial: str, *, fresh: bool = False) -> AdbTarget:
        """Return the device `serial`, or the only one when that is empty.

        A network address (``host:port``) is connected first when the server does not know it, or,
        with `fresh`, anew.
        Raises: DeviceError "adb_missing", "adb_no_device", "adb_many", "adb_unauthorized",
        "adb_offline" or "unreachable".
        """
        states = self._states()
        if ":" in serial and (fresh or states.get(serial) in {None, "offline"}):
            self._connect(serial, was_known=serial in states)
            states = self._states()
        if not serial:
            serial = self._only(states)
        state = states.get(serial)
        if state is None:
            known = ", ".join(sorted(states)) or "none"
            raise self._error(
                f"no device {serial!r} is attached",
                "adb_no_device",
                f"attached: {known}; is the cable in and USB debugging on?",
                retryable=True,
            )
        if state != "device":
            code, text, hint = _STATES.get(
                state, ("adb_offline", f"is in state {state!r}", "boot it into Android")
            )
            raise self._error(f"{serial!r} {text}", code, hint, retryable=code == "adb_offline")
        return AdbTarget(serial, self._features(serial))

    def open(self, serial: str, service: str) -> socket.socket:
        """Open `service` on the device; the caller owns the stream.

        Raises: DeviceError, "link_lost" when the device has gone.
        """
        client = self._ready()
        try:
            connection = client.device(serial=serial).open_transport(timeout=_REPLY_S)
            try:
                connection.send_command(service)
                connection.check_okay()
            except BaseException:
                connection.conn.close()
                raise
        except Exception as exc:  # noqa: BLE001 - adbutils raises its own, OSError and ValueError
            self._explain(exc, serial)
        stream: socket.socket = connection.conn
        stream.settimeout(None)
        return stream

    # --- the server ---------------------------------------------------------------------------

    def _states(self) -> dict[str, str]:
        try:
            return {info.serial: info.state for info in self._ready().list()}
        except HwnasError:
            raise
        except Exception as exc:  # noqa: BLE001 - as in `open`
            self._explain(exc, "")

    def _features(self, serial: str) -> frozenset[str]:
        try:
            text = self._ready().device(serial=serial).get_features()
        except HwnasError:
            raise
        except Exception as exc:  # noqa: BLE001 - as in `open`
            self._explain(exc, serial)
        return frozenset(word.strip() for word in text.replace("\n", ",").split(",") if word)

    def _connect(self, address: str, *, was_known: bool) -> None:
        client = self._ready()
        try:
            if was_known:
                client.disconnect(address)
            answer = str(client.connect(address, timeout=_CONNECT_S))
        except Exception as exc:  # noqa: BLE001 - as in `open`
            self._explain(exc, address)
        _LOG.info("adb connect %s: %s", address, answer)
        if not answer.startswith(("connected to", "already connected to")):
            code = "adb_unauthorized" if "authenticate" in answer else "unreachable"
            raise self._error(
                f"adb cannot connect to {address}: {answer.strip()}",
                code,
                "is ADB over network on (adb tcpip 5555), and the address right?",
                retryable=code == "unreachable",
            )

    def _ready(self) -> Any:
        """Return the client; the server is started when it does not run."""
        if self._client is None:
            host, port = server_address()  # first: adbutils reads it too, while it is imported
            try:
                from adbutils import AdbClient
            except ImportError as exc:
                raise MissingExtraError(
                    "adbutils", "adb", purpose=f"the device {self._device_id!r}"
                ) from exc
            self._client = AdbClient(host=host, port=port, socket_timeout=_REPLY_S)
        if not _listens(self._client.host, self._client.port):
            self._start()
        return self._client

    def _start(self) -> None:
        from adbutils import adb_path

        host, port = self._client.host, self._client.port
        if host not in {"127.0.0.1", "localhost", "::1"}:
            raise self._error(
                f"no ADB server answers at {host}:{port}",
                "unreachable",
                "start it there, or unset ANDROID_ADB_SERVER_HOST",
                retryable=True,
            )
        try:
            program = adb_path()
            # Its own session: a Ctrl-C here must not end the server that others use too.
            done = subprocess.run(  # noqa: S603 - the user's own adb
                [program, "-P", str(port), "start-server"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=20.0,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            done = None
        except Exception as exc:
            raise self._error(
                "no ADB server runs on this computer, and there is no 'adb' to start one",
                "adb_missing",
                "install the package 'adb' (Android platform tools)",
            ) from exc
        if done is None or done.returncode != 0 or not _listens(host, port):
            raise self._error(
                f"the ADB server does not start on port {port}",
                "adb_missing",
                f"see what it says: adb -P {port} nodaemon server",
            )

    # --- errors -------------------------------------------------------------------------------

    def _only(self, states: dict[str, str]) -> str:
        if not states:
            raise self._error(
                "no device is attached",
                "adb_no_device",
                "is the cable in and USB debugging on? see: adb devices",
                retryable=True,
            )
        if len(states) > 1:
            raise self._error(
                f"{len(states)} devices are attached: {', '.join(sorted(states))}",
                "adb_many",
                "name one in the URI: adb://SERIAL",
            )
        return next(iter(states))

    def _explain(self, exc: Exception, serial: str) -> NoReturn:
        """Raise what the server's answer means. Raises: DeviceError, always."""
        text = " ".join(str(exc).split())
        named = f"{serial!r}" if serial else "the ADB server"
        lower = text.lower()
        for state in ("unauthorized", "authorizing", "offline", "connecting"):
            if f"device {state}" in lower or f"device still {state}" in lower:
                code, words, hint = _STATES[state]
                raise self._error(f"{named} {words}", code, hint, retryable=True) from exc
        raise self._error(
            f"the link to {named} broke: {text or type(exc).__name__}",
            "link_lost",
            "is it still attached? the same command continues",
            retryable=True,
        ) from exc

    def _error(self, what: str, code: str, hint: str, *, retryable: bool = False) -> DeviceError:
        return DeviceError(
            f"{self._device_id!r}: {what}",
            device_id=self._device_id,
            code=code,
            hint=hint,
            retryable=retryable,
        )


def server_address() -> tuple[str, int]:
    """Host and port of the ADB server. Raises: ConfigError for a port that is not a number."""
    text = os.environ.get("ANDROID_ADB_SERVER_PORT") or str(_PORT)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"ANDROID_ADB_SERVER_PORT={text!r} is not a port")
    return os.environ.get("ANDROID_ADB_SERVER_HOST") or _HOST, int(text)


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=3.0):
        return True
    return False
