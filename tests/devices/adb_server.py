"""The outermost seam of ADB: a server that speaks the host protocol and runs commands here.

It answers what `adb` 29 answered (host:version, devices, features, connect, tport/transport,
shell,v2, exec) and runs the commands with this machine's `sh`. Its counterpart, the real server
with the real daemon, is used by tests/integration on the emulated board.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import struct
import subprocess
import threading
from pathlib import Path
from typing import Self

from hwnas_sdk.devices.transports.shell_v2 import (
    CLOSE_STDIN,
    EXIT,
    STDERR,
    STDIN,
    STDOUT,
    PacketReader,
    packet,
)


class AdbServerDouble:
    """A server with pretend devices; as a context it listens on `port`.

    Attributes:
        states: serial -> state, as `adb devices` says it.
        reachable: addresses that `adb connect` can reach.
        features: of every device.
        requests: services that were asked for.
        broken: serials whose link is cut: streams end without a word.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.states: dict[str, str] = {}
        self.reachable: set[str] = set()
        self.features = "shell_v2,stat_v2,cmd"
        self.requests: list[str] = []
        self.broken: set[str] = set()
        self._streams: set[socket.socket] = set()
        self._processes: list[subprocess.Popen[bytes]] = []
        double = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, EOFError):
                    double._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def cut(self, serial: str) -> None:
        """Break the link to `serial`: streams end, nothing on the "device" does."""
        self.broken.add(serial)
        for stream in list(self._streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    # --- the protocol ---------------------------------------------------------------------------

    def _serve(self, stream: socket.socket) -> None:
        serial = ""
        while True:
            length = int(_exactly(stream, 4), 16)
            service = _exactly(stream, length).decode()
            self.requests.append(service)
            if service.startswith("host"):
                serial, goes_on = self._host(stream, service)
                if not goes_on:
                    return
            elif serial in self.broken:
                return
            else:
                self._device(stream, service)
                return

    def _host(self, stream: socket.socket, service: str) -> tuple[str, bool]:
        """Answer a request to the server; returns the chosen device and whether more may come."""
        if service == "host:version":
            _answer(stream, "0029")
        elif service == "host:devices":
            lines = [f"{serial}\t{state}\n" for serial, state in self.states.items()]
            _answer(stream, "".join(lines))
        elif service.startswith("host:connect:"):
            address = service.removeprefix("host:connect:")
            if address in self.reachable:
                self.states[address] = "device"
                self.broken.discard(address)
                _answer(stream, f"connected to {address}")
            else:
                _answer(stream, f"failed to connect to '{address}': Connection refused")
        elif service.startswith("host:disconnect:"):
            self.states.pop(service.removeprefix("host:disconnect:"), None)
            _answer(stream, "disconnected")
        elif service.startswith("host-serial:"):
            serial, _, command = service.removeprefix("host-serial:").rpartition(":")
            if self._has(stream, serial) and command == "features":
                _answer(stream, self.features)
        elif service.startswith("host:tport:serial:"):
            serial = service.removeprefix("host:tport:serial:")
            if self._has(stream, serial):
                stream.sendall(b"OKAY" + struct.pack("<Q", 1))
                return serial, True
        else:
            _fail(stream, f"unknown host service {service!r}")
        return "", False

    def _has(self, stream: socket.socket, serial: str) -> bool:
        state = self.states.get(serial)
        if state is None:
            _fail(stream, f"device '{serial}' not found")
        elif state != "device":
            _fail(stream, f"device {state}")
        return state == "device"

    def _device(self, stream: socket.socket, service: str) -> None:
        kind, _, command = service.partition(":")
        if kind not in {"shell,v2,raw", "exec"}:
            _fail(stream, f"unknown service {service!r}")
            return
        stream.sendall(b"OKAY")
        merged = kind == "exec"
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home)},
            start_new_session=True,
        )
        self._processes.append(process)
        self._streams.add(stream)
        lock = threading.Lock()

        def give(pipe, kind: int) -> None:
            with pipe, contextlib.suppress(OSError):
                while data := pipe.read1(1 << 16):
                    with lock:
                        stream.sendall(data if merged else packet(kind, data))

        outputs = [threading.Thread(target=give, args=(process.stdout, STDOUT), daemon=True)]
        if not merged:
            outputs.append(
                threading.Thread(target=give, args=(process.stderr, STDERR), daemon=True)
            )
        feeder = threading.Thread(
            target=_feed, args=(stream, process), kwargs={"merged": merged}, daemon=True
        )
        for thread in [*outputs, feeder]:
            thread.start()
        for thread in outputs:
            thread.join()
        status = process.wait()
        with lock, contextlib.suppress(OSError):
            if not merged:
                stream.sendall(packet(EXIT, bytes([status if status >= 0 else 128 - status])))
            stream.shutdown(socket.SHUT_RDWR)
        feeder.join()
        self._streams.discard(stream)


def _feed(stream: socket.socket, process: subprocess.Popen[bytes], *, merged: bool) -> None:
    """Give the command its input."""
    packets = PacketReader()
    with process.stdin, contextlib.suppress(OSError, ValueError):
        while data := stream.recv(1 << 16):
            for kind, content in [(STDIN, data)] if merged else packets.feed(data):
                if kind == STDIN:
                    process.stdin.write(content)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()


def _answer(stream: socket.socket, text: str) -> None:
    stream.sendall(b"OKAY" + f"{len(text):04x}{text}".encode())


def _fail(stream: socket.socket, text: str) -> None:
    stream.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
