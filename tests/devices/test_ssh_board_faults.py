"""Sessions over SSH with a board that loses its agent, its journal or its files.

As in `test_ssh_session` all is real but the agent, which is the fake one.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest
from ssh_bench import undisturbed

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import ignore
from hwnas_sdk.devices._job_follow import JobFollower
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.drivers.ssh import open_transport
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.testing.device import TINY
from hwnas_sdk.workflows.measure import Measurer, artifact_target


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
    expected = {item: blocks for item, _, blocks in undisturbed(bench, job)}
    for entry in finished:
        assert [block.samples_ns.tolist() for block in entry.blocks] == expected[entry.item]


@pytest.mark.alone
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
