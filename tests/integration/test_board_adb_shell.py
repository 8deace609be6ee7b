"""Our ADB shell and the sessions for boards without Python, on a real server and a real `adbd`.

The fast tests use a double of the server (tests/devices/adb_server.py); this is its counterpart.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from qemu_board import AdbServer, Board

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices import open_session
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.devices.known_hosts import known_hosts_path
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.devices.transports.adb import AdbShell
from hwnas_sdk.testing.device import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNNER = Path(__file__).parents[1] / "devices" / "runners" / "test_benchmark_model_sh"


@pytest.fixture(scope="module")
def board(_emulation: None) -> Iterator[Board]:
    """A board of this module's own: its link is cut."""
    with Board(adb=True) as found:
        yield found


@pytest.fixture(autouse=True)
def _server(adb_server: AdbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in adb_server.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def shell(board: Board) -> Iterator[AdbShell]:
    found = AdbShell(board.adb_serial, device_id="board")
    yield found
    found.close()


def test_status_streams_and_input(shell: AdbShell) -> None:
    done = shell.run("echo out; echo err >&2; uname -m; exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, b"out\naarch64\n", b"err\n")
    assert shell.run("kill -9 $$").status == -9
    data = os.urandom(5_000_000)
    parts = (data[start : start + 70_000] for start in range(0, len(data), 70_000))
    done = shell.run("tee /tmp/copy | sha256sum; cat /tmp/copy; rm /tmp/copy", stdin=parts)
    assert done.stdout.startswith(hashlib.sha256(data).hexdigest().encode())
    assert done.stdout.endswith(data)
    assert shell.run("head -c 10 >/dev/null; echo enough", stdin=data).text == "enough"


def test_daemon_without_the_shell_protocol(shell: AdbShell, board: Board) -> None:
    target = shell._found()
    shell._target = type(target)(target.serial, frozenset())
    done = shell.run("cat; echo err >&2; exit 7", stdin=b"x" * 100_000)
    assert (done.status, len(done.stdout), done.stderr) == (7, 100_000, b"err\n")
    assert board.run("ls -A /data/local/tmp | grep hwnas- || :").stdout == ""
    channel = shell.open("cat")
    channel.send(b"hello\n", deadline=Deadline.after(10.0))
    assert channel.read_line(100) == b"hello\n"
    channel.close(grace_s=0.0)


def test_pipes_of_a_long_command(shell: AdbShell) -> None:
    channel = shell.open("while read -r x; do echo got $x; done; echo bye >&2; exit 3")
    channel.send(b"one\n", deadline=Deadline.after(10.0))
    assert channel.read_line(100) == b"got one\n"
    reader = threading.Thread(target=lambda: channel.read_line(100))
    reader.start()
    channel.close(grace_s=10.0)
    reader.join()
    assert (channel.exit_status(), channel.error_tail()) == (3, "bye")


def test_closing_does_not_end_a_command(shell: AdbShell, board: Board) -> None:
    """The reason for everything the sessions do about orphans."""
    channel = shell.open("sleep 4712")
    channel.close(grace_s=0.2)
    time.sleep(1.0)
    assert [entry for entry in board.processes() if "sleep 4712" in entry.command]
    board.kill("sleep 4712")


def test_pulled_cable(shell: AdbShell, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.transports.adb_server._CONNECT_S", 3.0)
    shell.run("true")
    board.link_down()
    try:
        with pytest.raises(DeviceError) as caught:
            shell.run("echo hello", timeout_s=1.0)
        assert caught.value.code == "link_lost"
        with pytest.raises(DeviceError) as caught:
            shell.run("true", timeout_s=1.0)
        assert caught.value.code in {"unreachable", "link_lost", "adb_offline"}
    finally:
        board.link_up()
    assert _eventually(shell) == "back"


def _eventually(shell: AdbShell) -> str:
    end_s = time.monotonic() + 30.0
    while True:
        try:
            return shell.run("echo back").text
        except DeviceError as exc:
            if not exc.retryable or time.monotonic() > end_s:
                raise
        time.sleep(0.5)


def _item(folder: Path, name: str) -> JobItem:
    content = f"TFL3 {name}".encode()
    path = folder / f"{name}.tflite"
    path.write_bytes(content)
    artifact = Artifact(
        sha256=hashlib.sha256(content).hexdigest(),
        format="tflite",
        arch_id=f"test:{name}",
        folded=False,
        producer="test",
        size_bytes=len(content),
        path=str(path),
    )
    return JobItem(name, artifact.arch_id, name, artifact)


def _job(folder: Path, name: str, *names: str) -> MeasureJob:
    sentinel = _item(folder, "sentinel").artifact
    items = tuple(_item(folder, item) for item in names)
    return MeasureJob(name, items, replace(TINY, max_blocks=3), sentinel, seed=1)


def test_runner_on_the_board(board: Board, tmp_path: Path) -> None:
    job = _job(tmp_path, "plain", "a", "b")
    with open_session(f"{board.adb_uri}?runner={RUNNER}") as session:
        assert session.spec.machine == "emulated"
        result = session.measure(job)
        assert session.recover(job).items == result.items  # type: ignore[union-attr]
        session.forget(job.id)
        assert session.recover(job) is None
        assert session.clean(frozenset()).files == 3
    assert [entry.error_code for entry in result.items] == [None, None]
    (record, _), _ = measurements_of(
        job,
        result,
        spec=session.spec,
        origin=session.origin,
        baseline_sentinel_ms=None,
        run_id="r",
        attempt_of=lambda _item: 1,
    )
    assert record.latency_ms is not None
    assert record.latency_ms >= 2.0  # it sleeps 2 ms per run, and starts that under emulation
    assert {"summary_only", "emulated"} <= set(record.flags)
    assert not _left(board)


def test_cable_pulled_during_a_job(board: Board, tmp_path: Path) -> None:
    """The board goes on alone; the same call waits for the link and has everything."""
    job = _job(tmp_path, "cable", "a")
    pulled = threading.Event()

    def pull(event) -> None:  # type: ignore[no-untyped-def]
        if event.data.get("event") == "block" and not pulled.is_set():
            pulled.set()
            board.link_down()
            threading.Timer(3.0, board.link_up).start()

    with open_session(f"{board.adb_uri}?runner={RUNNER}") as session:
        result = session.measure(job, on_event=pull)
    assert pulled.is_set()
    assert result.outcome == "done"
    assert [entry.error_code for entry in result.items] == [None]
    assert not _left(board)


def test_interrupt_leaves_nothing_running(board: Board, tmp_path: Path) -> None:
    def stop(event) -> None:  # type: ignore[no-untyped-def]
        if event.data.get("event") == "block":
            raise KeyboardInterrupt

    with open_session(f"{board.adb_uri}?runner={RUNNER}") as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(_job(tmp_path, "stop", "a"), on_event=stop)
        assert not _left(board)
        assert "lease.d" not in board.run("ls /data/local/tmp/hwnas").stdout.split()


def test_runner_over_ssh(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path))
    uri = f"{board.ssh_uri}&runner={RUNNER}"
    known_hosts_path().write_text(board.known_hosts.read_text())
    with open_session(uri) as session:
        result = session.measure(_job(tmp_path, "ssh", "a"))
    assert [entry.error_code for entry in result.items] == [None]
    assert not _left(board)


def _left(board: Board) -> list[str]:
    """What still runs of ours; a moment of grace for what is just ending."""
    end_s = time.monotonic() + 5.0
    while True:
        found = [
            entry.command
            for entry in board.processes()
            if "hwnas" in entry.command or "benchmark_model" in entry.command
        ]
        if not found or time.monotonic() > end_s:
            return found
        time.sleep(0.2)
