"""Sessions over SSH whose link breaks, with an agent that waits where it is told to.

The server, the wire and the processes are real; the agent is the fake one, so that every moment of
a job can be hit. `test_ssh_agent` has the real agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from ssh_server import Relay, agents_of

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import ignore
from hwnas_sdk.devices import DeviceSession, JobItem, drivers
from hwnas_sdk.devices._job_follow import JobFollower
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.drivers.ssh import open_shell, open_transport
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.devices.transports.remote import RemoteTransport
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.testing.device import TINY, DeviceConformance
from hwnas_sdk.workflows.measure import Measurer, artifact_target

FAKE = Path(drivers.__file__).with_name("_fake_agent.py")


class Bench:
    """Opens sessions with the fake agent on a trusted board, and does it harm."""

    def __init__(self, board) -> None:
        self.board = board
        self.server = board.server
        self.said: list[str] = []
        # One file is uploaded; this board is this machine, so it can find the rest.
        self._agent = board.key_file.parent / "agent.py"
        self._agent.write_text(
            f"import runpy, sys\nsys.path.insert(0, {str(FAKE.parent)!r})\n"
            f"runpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
        )

    def open(self, mode: str = "ok", *, port: int | None = None, **timeouts: float) -> AgentSession:
        transport = RemoteTransport(
            open_shell(self.board.uri(port=port), name="board"),
            work=str(self.board.work),
            python=sys.executable,
            agent=self._agent,
            agent_options=["--mode", mode],
        )
        return AgentSession(
            transport,
            name="board",
            uri=self.board.text(port=port),
            owner=owner_id(),
            origin="simulated",
            timeouts=Timeouts(**timeouts),
            governor="performance",
        )

    def go(self) -> None:
        """Let an agent that holds go on."""
        (self.board.work / "go").touch()

    def agents(self) -> list[int]:
        return agents_of(self.board.work)

    def kill_agents(self) -> None:
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def journal(self, job_id: str) -> Path:
        return self.board.work / "journal" / f"{job_id}.jsonl"

    def when(self, seq: int, act):
        """An event sink that calls `act` when the board waits before event `seq`."""
        count = 0

        def on_event(event) -> None:
            nonlocal count
            if event.message:
                self.said.append(event.message)
            if event.data.get("event"):
                count += 1
                if count == seq - 1:
                    act()

        return on_event


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


@pytest.mark.slow
class TestSsh(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _files(self, make_artifact, bench) -> None:
        self._make = make_artifact
        self._bench = bench

    def open(self) -> DeviceSession:
        return self._bench.open()

    def items(self, n: int) -> Sequence[JobItem]:
        return [JobItem(f"i{k}", f"test:{k}", f"net{k}", self._make(f"n{k}")) for k in range(n)]


def _samples(result):
    """All numbers of a result; those of the fake depend on the job only."""
    return [
        (entry.item, entry.error_code, [block.samples_ns.tolist() for block in entry.blocks])
        for entry in result.items
    ]


def _undisturbed(bench, job):
    with bench.open() as session:
        result = session.measure(replace(job, id="undisturbed"))
        session.forget("undisturbed")
    return _samples(result)


def test_one_connection_and_few_commands(bench, make_job) -> None:
    before, commands = bench.server.n_connections, len(bench.server.commands)
    with bench.open() as session:
        opening = len(bench.server.commands)
        assert opening == commands + 3  # look, upload the agent, start it
        for k in range(3):
            session.measure(make_job(f"j{k}", n=20))
            session.forget(f"j{k}")
        assert len(bench.server.commands) == opening + 1  # all files went in one
    assert bench.server.n_connections == before + 1
    with bench.open():
        assert len(bench.server.commands) == opening + 3  # the agent was there


def test_file_that_is_damaged_fails_alone(bench, make_job) -> None:
    good = make_job(n=2)
    broken = replace(good.items[0].artifact, sha256="0" * 64)
    items = (*good.items, replace(good.items[0], item="broken", artifact=broken))
    with bench.open() as session:
        result = session.measure(replace(good, items=items))
    assert [entry.error_code for entry in result.items] == [None, None, "artifact_corrupt"]
    assert result.outcome == "done"


def test_job_without_a_single_good_file(bench, make_job) -> None:
    (item, *_) = make_job(n=1).items
    item = replace(item, artifact=replace(item.artifact, sha256="0" * 64))
    with bench.open() as session:
        result = session.measure(replace(make_job(n=1), items=(item,), sentinel=None))
    assert [entry.error_code for entry in result.items] == ["artifact_corrupt"]


@pytest.mark.parametrize(
    "seq",
    [
        pytest.param(2, marks=pytest.mark.slow),
        7,
        *(pytest.param(seq, marks=pytest.mark.slow) for seq in (15, 21)),
    ],
)
def test_dropped_connection_at_any_moment(bench, make_job, seq) -> None:
    """The job goes on there; the session connects again and has every event, each once."""
    job = make_job("dropped")
    n_events = 21  # start, 3 x (loaded, warmed), 3 x 3 blocks, 3 x finished, sentinels

    def drop() -> None:
        bench.server.drop_all()
        threading.Timer(0.3, bench.go).start()

    with bench.open(f"hold={seq}") as session:
        result = session.measure(job, on_event=bench.when(seq, drop))
        lines = bench.journal(job.id).read_text().splitlines()
        assert len(lines) <= n_events + 1
        session.forget(job.id)
        assert session.recover(job) is None
    assert result.outcome == "done"
    assert result.environment["recovered"] is True
    assert _samples(result) == _undisturbed(bench, job)
    assert len(result.sentinel) == 2
    assert any("the link was lost; connecting again" in text for text in bench.said)
    assert any("board is back" in text for text in bench.said)


@pytest.mark.slow
def test_progress_is_reported_once_for_each_event(bench, make_job) -> None:
    job = make_job("progress")
    kinds = []
    harm = bench.when(9, lambda: (bench.server.drop_all(), threading.Timer(0.2, bench.go).start()))

    def on_event(event) -> None:
        harm(event)
        if "event" in event.data:
            kinds.append((event.data["event"], event.data["item"], event.done))

    with bench.open("hold=9") as session:
        session.measure(job, on_event=on_event)
    assert kinds[0][0] == "job_started"
    assert kinds[-1][0] == "job_done"
    assert [kind for kind, _, _ in kinds].count("finished") == 3
    assert len(kinds) == len(bench.journal(job.id).read_text().splitlines())


@pytest.mark.slow
def test_server_that_is_away_for_a_while(bench, make_job) -> None:
    job = make_job("away")

    def away() -> None:
        bench.server.stop_listening()
        bench.server.drop_all()
        bench.go()
        threading.Timer(0.8, bench.server.listen_again).start()

    with bench.open("hold=6") as session:
        result = session.measure(job, on_event=bench.when(6, away))
    assert _samples(result) == _undisturbed(bench, job)


def test_board_that_does_not_come_back(bench, make_job) -> None:
    job = make_job("gone")

    def off() -> None:
        bench.server.stop_listening()
        bench.server.drop_all()

    with (
        bench.open("hold=6", reconnect_s=0.4) as session,
        pytest.raises(DeviceError, match=r"and 'board' did not come back: .*refused") as caught,
    ):
        session.measure(job, on_event=bench.when(6, off))
    assert caught.value.code == "link_lost"
    assert caught.value.device_id == "board"
    assert caught.value.retryable
    assert "the same command continues" in caught.value.hint
    assert "\n" not in str(caught.value)
    bench.go()
    bench.server.listen_again()
    with bench.open() as session:  # the same command, later
        result = session.recover(job)
    assert result.outcome == "done"
    assert _samples(result) == _undisturbed(bench, job)


@pytest.mark.slow
def test_changed_host_key_ends_the_waiting(bench, make_job) -> None:
    """Another machine at the address is not waited away."""

    def replace_board() -> None:
        bench.server.host_key = paramiko.ECDSAKey.generate()
        bench.server.drop_all()

    with bench.open("hold=6") as session, pytest.raises(DeviceError) as caught:
        session.measure(make_job(), on_event=bench.when(6, replace_board))
    assert caught.value.code == "host_key_changed"


@pytest.mark.slow
def test_lost_between_jobs(bench, make_job) -> None:
    with bench.open() as session:
        session.measure(make_job("first"))
        bench.server.drop_all()
        result = session.measure(make_job("second"))
        assert "recovered" not in result.environment
        bench.server.drop_all()
        session.forget("second")
        bench.server.drop_all()
        assert session.recover(make_job("second")) is None
        bench.server.drop_all()
        assert session.clean(frozenset()).files == 4
    assert result.outcome == "done"


def test_lost_while_files_are_pushed(bench, make_job) -> None:
    with bench.open() as session:
        transport = session._link.transport
        push_all, calls = transport.push_all, []

        def cut_once(files) -> None:
            calls.append(files)
            if len(calls) == 1:
                bench.server.drop_all()
            push_all(files)

        transport.push_all = cut_once
        assert session.measure(make_job()).outcome == "done"
        assert len(calls) == 2


@pytest.mark.slow
def test_pulled_cable_is_noticed(bench, make_job, monkeypatch) -> None:
    """Nobody says that the link is gone: nothing is heard, not even answers to pings."""
    monkeypatch.setattr("hwnas_sdk.devices.transports.ssh_link.HANDSHAKE_S", 0.5)
    relay = Relay(bench.server.port)
    bench.board.trust(port=relay.port)
    job = make_job("pulled")

    def pull() -> None:
        relay.pull()
        bench.go()
        threading.Timer(0.8, relay.plug_in).start()

    try:
        with bench.open("hold=6", port=relay.port, ping_s=0.1) as session:
            result = session.measure(job, on_event=bench.when(6, pull))
    finally:
        relay.close()
    assert result.outcome == "done"
    assert _samples(result) == _undisturbed(bench, job)
    assert any("has not been heard for too long" in text for text in bench.said)


@pytest.mark.slow
def test_quiet_board_that_answers_pings_is_not_lost(bench, make_job) -> None:
    timer = threading.Timer(1.0, bench.go)
    with bench.open("hold=6", ping_s=0.1) as session:
        result = session.measure(make_job(), on_event=bench.when(6, timer.start))
        assert "recovered" not in result.environment
    assert session._link.transport.shell.n_connections == 1


@pytest.mark.slow
def test_killed_agent_gives_what_it_finished(bench, make_job) -> None:
    job = make_job("killed")
    with bench.open("hold=18") as session:
        result = session.measure(job, on_event=bench.when(18, bench.kill_agents))
        codes = [entry.error_code for entry in result.items]
        assert result.outcome == "crashed"
        assert None in codes
        assert set(codes) == {None, "truncated"}
        session.forget(job.id)


def test_killed_agent_with_nothing_finished(bench, make_job) -> None:
    with bench.open("hold=6") as session:
        with pytest.raises(DeviceError) as caught:
            session.measure(make_job(), on_event=bench.when(6, bench.kill_agents))
        assert caught.value.code == "agent_died"
        assert caught.value.retryable
        bench.go()
        assert session.measure(make_job("next")).outcome == "done"


@pytest.mark.slow
def test_board_that_lost_the_end_of_its_journal(bench, make_job) -> None:
    """A power cut takes what was not yet on its disk; what we have heard is kept."""
    job = make_job("power")

    def cut() -> None:
        bench.server.stop_listening()
        bench.server.drop_all()
        bench.kill_agents()
        path = bench.journal(job.id)
        lines = path.read_text().splitlines(keepends=True)
        done = {"type": "event", "seq": 6, "job": job.id, "event": "job_done"}
        path.write_text("".join(lines[:5]) + json.dumps({**done, "outcome": "crashed"}) + "\n")
        bench.server.listen_again()

    with bench.open("hold=18") as session:
        result = session.measure(job, on_event=bench.when(18, cut))
    assert result.outcome == "crashed"
    finished = [entry for entry in result.items if entry.error_code is None]
    assert finished
    expected = {item: blocks for item, _, blocks in _undisturbed(bench, job)}
    for entry in finished:
        assert [block.samples_ns.tolist() for block in entry.blocks] == expected[entry.item]


@pytest.mark.slow
def test_agent_that_dies_at_every_start_is_not_tried_for_ever(bench, make_job) -> None:
    with bench.open() as session:
        session._link.transport._agent_options = ("--mode", "die_at_start")
        bench.server.drop_all()
        started_s = time.monotonic()
        with pytest.raises(DeviceError, match=r"did not come back: .*exit status 7"):
            session.measure(make_job())
        assert time.monotonic() - started_s < 10.0


def test_interrupted_while_connecting_again(bench, make_job) -> None:
    def off() -> None:
        bench.server.stop_listening()
        bench.server.drop_all()

    harm = bench.when(6, off)

    def on_event(event) -> None:
        harm(event)
        if "connecting again" in event.message:
            raise KeyboardInterrupt

    with bench.open("hold=6") as session, pytest.raises(KeyboardInterrupt):
        session.measure(make_job(), on_event=on_event)
    bench.server.listen_again()


def test_asks_for_the_governor_and_names_the_inputs(bench, make_job) -> None:
    sent = []
    with bench.open() as session:
        request = session._link.wire.request

        def note(kind, **fields):
            sent.append((kind, fields))
            return request(kind, **fields)

        session._link.wire.request = note
        job = make_job()
        named = replace(job.items[0].artifact, inputs=(("input", (1, 3, 32, 32), "float32"),))
        items = (replace(job.items[0], artifact=named), *job.items[1:])
        session.measure(replace(job, items=items))
    (measure,) = [fields for kind, fields in sent if kind == "measure"]
    assert measure["options"]["governor"] == "performance"
    assert measure["items"][0]["inputs"] == [["input", [1, 3, 32, 32], "float32"]]
    assert measure["items"][1]["inputs"] is None
    assert measure["sentinel"]["path"].startswith("artifacts/")


@pytest.mark.slow
def test_talkative_login_shell(bench, make_job) -> None:
    bench.server.greeting = b"Welcome!\n{not json\n"
    with bench.open() as session:
        assert session.measure(make_job()).outcome == "done"


def test_hung_agent_is_ended_on_the_board(bench, tmp_path) -> None:
    """One that neither answers nor ends when its input does, nor at SIGTERM."""
    stubborn = tmp_path / "agent.py"
    stubborn.write_text("import time, signal\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)\n")
    transport = open_transport(bench.board.uri(), name="board")
    transport._agent_path = stubborn
    channel = transport.start()
    reader = threading.Thread(target=channel.read_line, args=(100,))
    reader.start()
    deadline_s = time.monotonic() + 10.0
    while not (bench.agents() and channel.pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert bench.agents() == [channel.pid]
    channel.close(grace_s=0.1)
    assert not bench.agents()
    reader.join()
    transport.close()


def test_closing_the_channel_does_not_stop_a_job(bench, make_job) -> None:
    """What the host lets go of goes on: the trap this whole module is about, stated."""
    job = make_job("left")
    left = []

    def leave() -> None:
        left.extend(bench.agents())
        bench.server.stop_listening()
        bench.server.drop_all()

    with bench.open("hold=6", reconnect_s=0.1) as session, pytest.raises(DeviceError):
        session.measure(job, on_event=bench.when(6, leave))
    assert left
    assert bench.agents() == left
    bench.go()
    deadline_s = time.monotonic() + 10.0
    while bench.agents() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert '"job_done"' in bench.journal(job.id).read_text().splitlines()[-1]
    bench.server.listen_again()


def test_agent_that_cannot_start_says_why(ssh_board) -> None:
    ssh_board.trust()
    fake = ssh_board.home / "python"
    fake.write_text(
        "#!/bin/sh\ncase $1 in -S) echo 3.9.1; exit;; esac\n"
        "echo 'Illegal instruction' >&2; exit 132\n"
    )
    fake.chmod(0o755)
    transport = open_transport(ssh_board.uri(python=str(fake)), name="board")
    with pytest.raises(DeviceError, match="SIGILL; its last words: Illegal instruction") as caught:
        AgentSession(transport, name="board", uri="", owner="me")
    assert caught.value.code == "agent_died"


@pytest.mark.slow
def test_one_command_measures_everything_although_the_agent_dies(bench, make_job) -> None:
    """What the dead agent had finished is kept, the rest is measured by its successor, once."""
    targets = [artifact_target(item.artifact, item.arch) for item in make_job(n=8).items]
    with (
        MeasurementStore.open(bench.board.home / "store.sqlite") as store,
        bench.open("die_once=44") as session,
    ):
        run = store.start_run("measure", {})
        measurer = Measurer(store, session, run.id, TINY)
        results = measurer.measure(targets, task="test")
        assert store.open_jobs(run_id=run.id) == []
        stored = store.measurements(run_id=run.id)
    assert (bench.board.work / "died_once").exists()
    assert len(results) == len(stored) == 8
    assert {record.attempt for record in stored} == {1}
    assert {record.status for record in stored} == {"valid"}
    assert len(measurer.jobs) == 2


def test_what_the_board_tidied_away_is_pushed_again(bench, make_job) -> None:
    with bench.open() as session:
        assert session.measure(make_job("first")).items[0].error_code is None
        for path in (bench.board.work / "artifacts").iterdir():
            path.unlink()  # as the agent does beyond its limit, when it accepts another job
        gone = session.measure(make_job("second"))
        assert {entry.error_code for entry in gone.items} == {"artifact_missing"}
        again = session.measure(make_job("third"))
        assert {entry.error_code for entry in again.items} == {None}


def test_job_whose_numbers_are_text_is_a_fault_of_the_board(bench, make_job) -> None:
    with bench.open() as session:
        follower = JobFollower(session._link, make_job("odd"), ignore)
        item = make_job("odd").items[0].item
        loaded = {"seq": 1, "event": "loaded", "item": item, "load_ns": "soon"}
        assert follower.assembler.feed(loaded)
        with pytest.raises(DeviceError, match="makes no sense") as caught:
            follower.result()
        assert caught.value.code == "agent_protocol"
