"""Sessions over SSH whose link breaks, with an agent that waits where it is told to.

The server, the wire and the processes are real; the agent is the fake one, so that every moment of
a job can be hit. `test_ssh_agent` has the real agent, `test_ssh_board_faults` what boards do.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import paramiko
import pytest
from ssh_bench import samples, undisturbed
from ssh_server import Relay

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices import DeviceSession, JobItem
from hwnas_sdk.testing.device import DeviceConformance


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
    assert samples(result) == undisturbed(bench, job)
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
    assert samples(result) == undisturbed(bench, job)


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
    assert samples(result) == undisturbed(bench, job)


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
    relay = Relay(bench.server.port)
    bench.board.trust(port=relay.port)
    job = make_job("pulled")

    def pull() -> None:
        relay.pull()
        bench.go()
        threading.Timer(0.8, relay.plug_in).start()

    try:
        with bench.open("hold=6", port=relay.port, ping_s=0.1) as session:
            # From here on: the first connection is not tried twice.
            monkeypatch.setattr("hwnas_sdk.devices.transports.ssh_link.HANDSHAKE_S", 0.5)
            result = session.measure(job, on_event=bench.when(6, pull))
    finally:
        relay.close()
    assert result.outcome == "done"
    assert samples(result) == undisturbed(bench, job)
    assert any("has not been heard for too long" in text for text in bench.said)


@pytest.mark.slow
def test_quiet_board_that_answers_pings_is_not_lost(bench, make_job) -> None:
    timer = threading.Timer(3.0, bench.go)
    with bench.open("hold=6", ping_s=0.4) as session:
        result = session.measure(make_job(), on_event=bench.when(6, timer.start))
        assert "recovered" not in result.environment
    assert session._link.transport.shell.n_connections == 1
