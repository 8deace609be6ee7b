"""A real SSH server inside the test process: paramiko's protocol, a real shell behind it.

What it leaves out of sshd: users (one key is let in), ptys, forwarding. As with sshd, a process
outlives its connection: when that ends its pipes are closed, and nothing is killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

_CHUNK = 2**15


class BoardSshServer:
    """Listens on a loopback port; every accepted connection may run shell commands.

    Attributes:
        n_connections: logged in so far.
        commands: every command line asked for, in order.
        greeting: what a login shell prints before each command (a talkative .bashrc).
        env: environment of the commands.
    """

    def __init__(self, home: Path, client_key: paramiko.PKey | None) -> None:
        self.host_key = paramiko.ECDSAKey.generate()
        self.client_key = client_key
        self.env: dict[str, str] = {"PATH": os.environ["PATH"], "HOME": str(home)}
        self.greeting = b""
        self.n_connections = 0
        self.n_attempts = 0
        self.commands: list[str] = []
        self._transports: list[paramiko.Transport] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="ssh-server", daemon=True)
        self._thread.start()

    def drop_all(self) -> None:
        """End every connection at once, with a reset, as a rebooted router does."""
        transports, self._transports = self._transports, []
        for transport in transports:
            with contextlib.suppress(OSError):
                transport.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            transport.close()

    def stop_listening(self) -> None:
        """Refuse new connections."""
        self._closed = True
        # Closing alone would leave the accepting thread in its call.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def listen_again(self) -> None:
        """Accept connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="ssh-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End everything but the processes on the board."""
        if not self._closed:
            self.stop_listening()
        self.drop_all()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self.n_attempts += 1
            transport = paramiko.Transport(stream)
            transport.set_log_channel("test.ssh-server")
            transport.add_server_key(self.host_key)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(threading.Event(), _Interface(self))

    def run(self, channel: paramiko.Channel, command: str) -> None:
        """What sshd does with a command: the user's shell, three pipes, an exit status."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd=self.env["HOME"],
            start_new_session=True,
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError):
            if self.greeting:
                channel.sendall(self.greeting)
        feeder = threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True)
        feeder.start()
        errors = threading.Thread(
            target=_drain, args=(process.stderr, channel.sendall_stderr), daemon=True
        )
        errors.start()
        _drain(process.stdout, channel.sendall)
        errors.join()
        status = process.wait()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if status >= 0:
                channel.send_exit_status(status)
            channel.close()
        feeder.join()


class _Interface(paramiko.ServerInterface):
    def __init__(self, server: BoardSshServer) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = self._server.client_key
        if username == "pi" and known is not None and key.asbytes() == known.asbytes():
            self._server.n_connections += 1
            return paramiko.common.AUTH_SUCCESSFUL
        return paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == "session":
            return paramiko.common.OPEN_SUCCEEDED
        return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        text = command.decode()
        self._server.commands.append(text)
        threading.Thread(
            target=self._server.run, args=(channel, text), name="ssh-command", daemon=True
        ).start()
        return True


def _feed(channel: paramiko.Channel, pipe: object) -> None:
    """The client's input to the process, until either ends."""
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


def _drain(pipe: object, send: object) -> None:
    """The process's output to the client; when that is gone the pipe is closed, as sshd does."""
    with contextlib.suppress(OSError, EOFError):
        while data := pipe.read(_CHUNK):  # type: ignore[attr-defined]
            send(data)  # type: ignore[operator]
    with contextlib.suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


class Relay:
    """A TCP relay in front of the server: a cable that can be pulled without anybody noticing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._streams: list[socket.socket] = []
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def pull(self) -> None:
        """Let nothing through; both ends keep their connection and hear nothing."""
        self._flowing.clear()

    def plug_in(self) -> None:
        """Let everything through again, also what was held back."""
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._streams += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(home: Path, client_key: paramiko.PKey | None) -> Iterator[BoardSshServer]:
    """A server that is closed at the end."""
    server = BoardSshServer(home, client_key)
    try:
        yield server
    finally:
        server.close()


def agents_of(work: Path) -> list[int]:
    """Process ids of agents (and their workers) whose command line names `work`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            is_agent = any(b"hwnas-agent-" in word for word in words)
            if is_agent and str(work).encode() in words:
                found.append(int(path.parent.name))
    return found
