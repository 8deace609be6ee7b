"""The real agent with the real runtime, behind a real SSH server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from ssh_server import agents_of
from test_devices_local import network_items

from hwnas_sdk.devices import DeviceSession, JobItem, MeasureJob, open_session
from hwnas_sdk.devices.drivers.ssh import open_transport
from hwnas_sdk.testing.device import TINY, DeviceConformance

LONG = replace(TINY, block_min_s=0.1, min_blocks=4, max_blocks=4, max_timed_s=2.0)
"""About half a second for each network: time enough to break something."""


@pytest.fixture
def board(ssh_board):
    ssh_board.trust()
    yield ssh_board
    deadline_s = time.monotonic() + 20.0
    while agents_of(ssh_board.work) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not agents_of(ssh_board.work)  # whatever happened, nothing is left running


@pytest.fixture
def job(tmp_path):
    def make(name: str, n: int = 2, **changes: object) -> MeasureJob:
        items = tuple(network_items(tmp_path, n))
        fields = {"settings": TINY, "sentinel": items[0].artifact, "seed": 5, **changes}
        return MeasureJob(name, items, **fields)  # type: ignore[arg-type]

    return make


@pytest.mark.slow
class TestSsh(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, board) -> None:
        self._folder = tmp_path
        self._board = board

    def open(self) -> DeviceSession:
        return open_session(self._board.text())

    def items(self, n: int) -> Sequence[JobItem]:
        return network_items(self._folder, n)


def _check_whole(result) -> None:
    """Every network has its blocks, and no block came twice."""
    assert result.outcome == "done"
    for entry in result.items:
        assert entry.error_code is None
        assert entry.facts["n_blocks"] == len(entry.blocks)
        stamps = [block.t_ns for block in entry.blocks]
        assert len(set(stamps)) == len(stamps)


@pytest.mark.slow
def test_job_goes_on_without_its_link(board, job) -> None:
    task = job("dropped", n=3, settings=LONG)
    seen, said = [], []

    def on_event(event) -> None:
        said.append(event.message)
        seen.append(event.data.get("event"))
        if seen.count("block") == 2 and seen[-1] == "block":
            board.server.drop_all()

    with open_session(board.text()) as session:
        assert session.spec.runtimes["ort"]
        result = session.measure(task, on_event=on_event)
        session.forget(task.id)
        assert session.recover(task) is None
    _check_whole(result)
    assert any("connecting again" in text for text in said)


@pytest.mark.slow
def test_connection_lost_again_and_again(board, job) -> None:
    stop = threading.Event()

    def worry() -> None:
        pause_s = 2.0
        while not stop.wait(pause_s):
            board.server.drop_all()
            pause_s *= 1.3  # a slow machine must get somewhere between two of them

    thread = threading.Thread(target=worry)
    with open_session(board.text()) as session:
        thread.start()
        try:
            result = session.measure(job("worried", n=6, settings=LONG))
        finally:
            stop.set()
            thread.join()
    _check_whole(result)


@pytest.mark.slow
def test_agent_that_is_killed(board, job) -> None:
    """What it had finished comes back at once; the board is free for the rest."""
    task = job("killed", n=3, settings=LONG)
    seen = []

    def on_event(event) -> None:
        seen.append(event.data.get("event"))
        if seen.count("finished") == 1 and seen[-1] == "finished":
            os.kill(session._link.hello["pid"], signal.SIGKILL)

    with open_session(board.text()) as session:
        result = session.measure(task, on_event=on_event)
        assert result.outcome in {"crashed", "done"}
        codes = [entry.error_code for entry in result.items]
        assert None in codes
        session.forget(task.id)
        _check_whole(session.measure(job("next")))


@pytest.mark.slow
def test_killed_host_loses_nothing(board, job, kill_host) -> None:
    task = job("orphan", settings=LONG)
    kill_host(board.text(), task, "block")
    with open_session(board.text()) as session:
        result = session.recover(task)
        _check_whole(result)
        session.forget(task.id)
        assert session.recover(task) is None


@pytest.mark.slow
def test_ctrl_c_frees_the_board(board, job) -> None:
    def interrupt(event) -> None:
        if event.done == 1:
            raise KeyboardInterrupt

    task = job("interrupted", n=3)
    with open_session(board.text()) as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(task, on_event=interrupt)
        assert any(entry.error_code is None for entry in session.recover(task).items)
        _check_whole(session.measure(job("next")))


def test_idle_agent_ends_when_the_host_is_silent(board) -> None:
    """A host that vanished without a word (no connection reset) does not keep the board."""
    transport = open_transport(board.uri(), name="board")
    transport._host_timeout_s = 0.5
    channel = transport.start()
    assert channel.read_line(2**20) == b""
    assert channel.exit_status(wait_s=10.0) == 0
    channel.close(grace_s=0.0)
    transport.close()


def test_agent_gets_its_folder_and_the_hosts_patience(board) -> None:
    with open_session(board.text(work="$HOME/else where")):
        line = board.server.commands[-1]
        assert "--host-timeout 25" in line
        assert agents_of(board.home / "else where")


@pytest.mark.alone
@pytest.mark.slow
def test_overhead_of_a_measurement(board, job) -> None:
    """Wall time beyond what the board was busy with, for each network, on loopback."""
    task = job("overhead", n=20, settings=LONG)
    with open_session(board.text()) as session:
        started_s = time.monotonic()
        result = session.measure(task)
        wall_s = time.monotonic() - started_s
    _check_whole(result)
    assert (wall_s - result.busy_s) / len(result.items) < 0.5
