"""Local ports that lead through SSH to ports beside a TVM tracker.

TVM's tracker tells a client the address of a server as it saw it; for a server that runs beside the
tracker that is loopback and a port. So each such port is forwarded under its own number.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.ssh_link import close_quietly, connect
from hwnas_sdk.devices.transports.ssh_target import ssh_target
from hwnas_sdk.devices.uri import DeviceUri

if TYPE_CHECKING:
    import paramiko

_CHUNK = 65536
_OPEN_S = 15.0


class Tunnel:
    """An SSH connection and the ports forwarded through it.

    Args:
        uri: ``ssh://user@host`` with the options of that driver.
        remote_host: the tracker, as the SSH server reaches it.
        device_id: for messages.

    Raises: ConfigError for a bad URI; DeviceError when the server cannot be reached or trusted.
    """

    def __init__(self, uri: DeviceUri, *, remote_host: str, device_id: str) -> None:
        uri.check_options("identity")
        self._device_id = device_id
        self._remote_host = remote_host
        self._transport: paramiko.Transport = connect(ssh_target(uri), device_id=device_id)
        self._listeners: dict[int, socket.socket] = {}
        self._closed = False

    def forward(self, port: int, *, same: bool = True) -> int:
        """Forward a local port to `port` there; returns the local one, the same one if `same`.

        Raises: DeviceError when that local port is taken.
        """
        if port in self._listeners:
            return int(self._listeners[port].getsockname()[1])
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port if same else 0))
            listener.listen()
        except OSError as exc:
            listener.close()
            raise DeviceError(
                f"{self._device_id}: port {port} of this machine is needed for the tunnel: "
                f"{exc.strerror}",
                device_id=self._device_id,
                code="port_taken",
                hint="start the board's rpc_server with another --port",
            ) from exc
        self._listeners[port] = listener
        threading.Thread(
            target=self._accept, args=(listener, port), name=f"tunnel {port}", daemon=True
        ).start()
        return int(listener.getsockname()[1])

    def close(self) -> None:
        """Close every port and the connection."""
        self._closed = True
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
            listener.close()
        self._listeners.clear()
        self._transport.close()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while not self._closed:
            try:
                client, origin = listener.accept()
            except OSError:
                return
            try:
                channel = self._transport.open_channel(
                    "direct-tcpip", (self._remote_host, port), origin, timeout=_OPEN_S
                )
            except Exception:  # noqa: BLE001 - paramiko raises many; the client sees a closed port
                client.close()
                continue
            threading.Thread(
                target=_pump, args=(client, channel), name=f"tunnel {port} link", daemon=True
            ).start()


def _pump(client: socket.socket, channel: paramiko.Channel) -> None:
    """Carry bytes both ways until one side ends."""
    ends: list[Any] = [client, channel]
    try:
        while True:
            ready, _, _ = select.select(ends, [], [])
            if client in ready:
                data = client.recv(_CHUNK)
                if not data:
                    return
                channel.sendall(data)
            if channel in ready:
                data = channel.recv(_CHUNK)
                if not data:
                    return
                client.sendall(data)
    except (OSError, EOFError):  # paramiko says a connection that is gone in both ways
        return
    finally:
        client.close()
        close_quietly(channel)
