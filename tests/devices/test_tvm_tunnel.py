"""The tunnel of `tvm-rpc:`, through a real SSH protocol server, to a server that echoes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import paramiko
import pytest
import ssh_server

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.drivers._tvm_tunnel import Tunnel, _pump
from hwnas_sdk.devices.uri import DeviceUri

if TYPE_CHECKING:
    from conftest import SshBoard


class _Forwarding(ssh_server._Interface):
    """What sshd does with a forwarded port."""

    def __init__(self, server: ssh_server.BoardSshServer) -> None:
        super().__init__(server)
        self._wanted: dict[int, tuple[str, int]] = {}
        self._transport = server._transports[-1]
        threading.Thread(target=self._serve, daemon=True).start()

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self._wanted[chanid] = destination
        return paramiko.common.OPEN_SUCCEEDED

    def _serve(self) -> None:
        end_s = time.monotonic() + 10.0
        while not self._transport.is_active() and time.monotonic() < end_s:
            time.sleep(0.01)
        while self._transport.is_active():
            channel = self._transport.accept(0.2)
            if channel is not None:
                place = self._wanted[channel.get_id()]
                try:
                    end = socket.create_connection(place, timeout=5.0)
                except OSError:
                    channel.close()
                    continue
                threading.Thread(target=_pump, args=(end, channel), daemon=True).start()


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that sends back what it gets, reversed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    while data := client.recv(65536):
                        client.sendall(data[::-1])

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def tunnel(ssh_board: SshBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnel]:
    monkeypatch.setattr(ssh_server, "_Interface", _Forwarding)
    ssh_board.trust()
    uri = DeviceUri.parse(f"ssh://pi@127.0.0.1:{ssh_board.server.port}")
    opened = Tunnel(uri, remote_host="127.0.0.1", device_id="board")
    yield opened
    opened.close()


def ask(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as link:
        link.settimeout(10.0)
        link.sendall(text)
        return link.recv(65536)


def test_bytes_go_both_ways_and_several_links_at_once(tunnel: Tunnel, echo: int) -> None:
    port = tunnel.forward(echo, same=False)
    assert port != echo
    assert ask(port, b"tracker") == b"rekcart"
    assert ask(port, b"again") == b"niaga"
    assert tunnel.forward(echo, same=False) == port


def test_a_port_nobody_listens_at_is_closed_at_once(tunnel: Tunnel) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    port = tunnel.forward(free, same=False)
    assert ask(port, b"x") == b""


def test_closing_gives_the_ports_back(tunnel: Tunnel, echo: int) -> None:
    port = tunnel.forward(echo, same=False)
    tunnel.close()
    with pytest.raises(OSError, match="refused"):
        ask(port, b"x")


def test_a_host_nobody_trusted_is_not_talked_to(ssh_board: SshBoard) -> None:
    uri = DeviceUri.parse(f"ssh://pi@127.0.0.1:{ssh_board.server.port}")
    with pytest.raises(DeviceError) as caught:
        Tunnel(uri, remote_host="127.0.0.1", device_id="board")
    assert caught.value.code == "host_key_unknown"
