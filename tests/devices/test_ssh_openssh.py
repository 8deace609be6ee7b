"""The same against OpenSSH's own sshd, where there is one: as an ordinary user, on a high port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import paramiko
import pytest

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices import known_hosts
from hwnas_sdk.devices.drivers.ssh import open_shell
from hwnas_sdk.devices.uri import DeviceUri


def _find_sshd() -> str:
    """sshd's absolute path (it insists on one); skips where it cannot run."""
    named = os.environ.get("HWNAS_TEST_SSHD")
    found = named or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no sshd on this machine (the emulated board of the integration tests has one)")
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd started by root needs the folder /run/sshd")
    return found


class Daemon:
    """One sshd and what it listens to."""

    def __init__(self, folder: Path, sshd: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        host, user = folder / "host_key", folder / "user_key"
        for path in (host, user):
            paramiko.ECDSAKey.generate().write_private_key_file(str(path))
        key = paramiko.ECDSAKey.from_private_key_file(str(user))
        (folder / "authorized").write_text(f"{key.get_name()} {key.get_base64()}\n")
        (folder / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        self.log = folder / "log"
        self._process = subprocess.Popen(
            [sshd, "-D", "-f", str(folder / "config"), "-E", str(self.log)]
        )
        self.uri = DeviceUri.parse(f"ssh://127.0.0.1:{port}?identity={user}")
        self._await(port)

    def _await(self, port: int) -> None:
        deadline_s = time.monotonic() + 10.0
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            time.sleep(0.05)
        text = self.log.read_text() if self.log.exists() else ""
        self.stop()
        pytest.skip(f"this sshd does not start here: {text[-300:]}")

    def children(self) -> list[int]:
        """The processes that serve a connection."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10.0)


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    daemon = Daemon(tmp_path, _find_sshd())
    yield daemon
    daemon.stop()


@pytest.fixture
def shell(daemon):
    known_hosts.pin(known_hosts.fetch_host_key(daemon.uri, name="board"), name="board")
    shell = open_shell(daemon.uri, name="board")
    yield shell
    shell.close()


def test_unknown_host_is_refused(daemon) -> None:
    with pytest.raises(DeviceError) as caught:
        open_shell(daemon.uri, name="board").run("true")
    assert caught.value.code == "host_key_unknown"


def test_commands(shell) -> None:
    done = shell.run("cat; echo oops >&2; exit 7", stdin=b"x" * 3_000_000)
    assert (done.status, len(done.stdout), done.stderr) == (7, 3_000_000, b"oops\n")
    assert shell.run("kill -9 $$").status == -9
    assert shell.n_connections == 1


@pytest.mark.alone
def test_connection_that_is_killed(shell, daemon, tmp_path) -> None:
    """The process outlives it, the host is told, and the next command connects anew."""
    flag = tmp_path / "flag"
    channel = shell.open(f"echo ready; sleep 1; touch {flag}; exit 0")
    assert channel.read_line(100) == b"ready\n"
    for pid in daemon.children():
        os.kill(pid, signal.SIGKILL)
    started_s = time.monotonic()
    assert channel.read_line(100) == b""
    assert channel.link_lost
    assert time.monotonic() - started_s < 5.0
    assert shell.run("echo back").text == "back"
    deadline_s = time.monotonic() + 10.0
    while not flag.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert flag.exists()


def test_deadline_on_the_board(shell, tmp_path) -> None:
    flag = tmp_path / "flag"
    with pytest.raises(DeviceError) as caught:
        shell.run(f"sleep 2; touch {flag}", timeout_s=1.0)
    assert caught.value.code == "deadline"
    time.sleep(1.5)
    assert not flag.exists()
