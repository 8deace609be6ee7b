"""Files that stand for networks, and small jobs over them."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
from command_rig import Rig
from ssh_bench import Bench
from ssh_server import BoardSshServer, serving

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices import known_hosts
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.devices.uri import DeviceUri
from hwnas_sdk.testing.device import TINY

_HOST = """
import json, signal, sys
from hwnas_sdk.devices import MeasureJob, open_session
job = MeasureJob.from_json(json.loads(sys.argv[2]))
with open_session(sys.argv[1]) as session:
    def report(event):
        said = f"{event.data.get('event')} {event.done}"
        print(said, flush=True)
        if said.startswith(sys.argv[3]):
            signal.pause()  # to be killed here
    session.measure(job, on_event=report)
    print("over", flush=True)
"""


def _run_host_until(uri: str, job: MeasureJob, line: str) -> None:
    """Measure in another process and kill that with -9 when it prints `line`."""
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST, uri, json.dumps(job.to_json()), line],
        stdout=subprocess.PIPE,
        text=True,
    )
    with host:
        assert host.stdout is not None
        for printed in host.stdout:
            if printed.strip().startswith(line):
                host.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"the host never printed {line!r}")
    assert host.returncode == -signal.SIGKILL


@pytest.fixture
def kill_host() -> Callable[[str, MeasureJob, str], None]:
    """Runs a job in another process and kills that at a given moment."""
    return _run_host_until


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[[str], Artifact]:
    """Writes a file only a fake board can run."""

    def make(name: str) -> Artifact:
        content = f"network {name}".encode() * 500
        sha256 = hashlib.sha256(content).hexdigest()
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        return Artifact(
            sha256=sha256,
            format="onnx",
            arch_id=f"test:{name}",
            folded=False,
            producer="test",
            size_bytes=len(content),
            path=str(path),
            input_shapes={"input": (1, 3, 32, 32)},
        )

    return make


@pytest.fixture
def make_job(make_artifact: Callable[[str], Artifact]) -> Callable[..., MeasureJob]:
    """Makes a job over n such files."""

    def make(name: str = "job", n: int = 3, **changes: object) -> MeasureJob:
        items = tuple(
            JobItem(
                f"item{k}", f"test:{k}", f"net{k}", make_artifact(f"n{k}"), expected=(0.5, -1.0)
            )
            for k in range(n)
        )
        fields = {"settings": TINY, "sentinel": make_artifact("sentinel"), "seed": 3, **changes}
        return MeasureJob(name, items, **fields)  # type: ignore[arg-type]

    return make


@dataclass
class SshBoard:
    """A board behind a real SSH protocol server on this machine.

    Attributes:
        server: the server.
        home: the home folder of the user ``pi`` there.
        key_file: the private key that is let in.
    """

    server: BoardSshServer
    home: Path
    key_file: Path

    @property
    def work(self) -> Path:
        """The agent's work folder."""
        return self.home / ".local/share/hwnas"

    def text(self, *, port: int | None = None, **options: str) -> str:
        """Its URI, with our own interpreter unless another is named."""
        options = {"python": sys.executable, **options}
        query = "&".join(f"{key}={value}" for key, value in options.items() if value)
        return f"ssh://pi@127.0.0.1:{port or self.server.port}?{query}"

    def uri(self, *, port: int | None = None, **options: str) -> DeviceUri:
        """The same, parsed."""
        return DeviceUri.parse(self.text(port=port, **options))

    def trust(self, *, port: int | None = None) -> None:
        """Pin the key of whatever answers."""
        uri = self.uri(port=port)
        known_hosts.pin(known_hosts.fetch_host_key(uri, name="board"), name="board")


@pytest.fixture
def ssh_board(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SshBoard]:
    """A board that lets our key in; its host key is not trusted yet."""
    ours, board = tmp_path_factory.mktemp("user"), tmp_path_factory.mktemp("board")
    monkeypatch.setenv("HOME", str(ours))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = paramiko.ECDSAKey.generate()
    (ours / ".ssh").mkdir()
    key_file = ours / ".ssh" / "id_ecdsa"
    key.write_private_key_file(str(key_file))
    with serving(board, key) as server:
        (board / "lease").mkdir()
        server.env["HWNAS_LEASE_DIR"] = str(board / "lease")
        yield SshBoard(server, board, key_file)


@pytest.fixture
def bench(ssh_board):
    ssh_board.trust()
    bench = Bench(ssh_board)
    yield bench
    bench.go()
    deadline_s = time.monotonic() + 10.0
    while bench.agents() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not bench.agents()  # whatever happened, nothing is left running


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A board without Python."""
    return Rig(tmp_path)
