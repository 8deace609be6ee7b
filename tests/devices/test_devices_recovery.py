"""A host that is killed loses nothing: the board goes on, the next session reads its journal."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices import JobResult, open_session


def _samples(result: JobResult) -> list[tuple[str, list[list[int]]]]:
    return [
        (entry.item, [block.samples_ns.tolist() for block in entry.blocks])
        for entry in result.items
    ]


@pytest.mark.parametrize(
    ("mode", "line"), [("hold=2", "job_started"), ("hold=12", "block 0"), ("ok", "job_done")]
)
def test_orphan_finishes_and_is_recovered(mode, line, make_job, kill_host) -> None:
    job = make_job("killed", n=2)
    kill_host(f"fake:?mode={mode}", job, line)
    messages = []

    def let_go(event) -> None:
        if event.message:
            messages.append(event.message)
            (_resources.board_work_path("fake") / "go").touch()

    with open_session(f"fake:?mode={mode}") as session:
        recovered = session.recover(job, on_event=let_go)
        assert recovered is not None
        assert recovered.outcome == "done"
        assert recovered.environment["recovered"] is True
        session.forget(job.id)
        assert session.recover(job) is None
        # The fake's numbers depend on the job only: as if nothing had happened.
        undisturbed = session.measure(job)
        session.forget(job.id)
    assert _samples(recovered) == _samples(undisturbed)
    if mode != "ok":
        assert len(messages) == 1
        assert "an earlier run of yours" in messages[0]


def test_wait_for_an_orphan_is_bounded(make_job, kill_host) -> None:
    job = make_job("killed", n=2)
    kill_host("fake:?mode=hold=5", job, "job_started")
    with open_session("fake:") as session:
        session._link.timeouts = replace(session._link.timeouts, lease_own_s=0.2)
        with pytest.raises(DeviceError, match="is in use") as caught:
            session.recover(job)
        assert caught.value.code == "board_busy"
        (_resources.board_work_path("fake") / "go").touch()
        session._link.timeouts = replace(session._link.timeouts, lease_own_s=60.0)
        assert session.recover(job).outcome == "done"


def test_board_that_died_too_gives_what_was_finished(make_job) -> None:
    job = make_job("torn", n=3)
    with open_session("fake:?mode=die_after=14") as session, pytest.raises(DeviceError):
        session.measure(job)
    journal = _resources.board_work_path("fake") / "journal" / "torn.jsonl"
    with journal.open("a") as stream:
        stream.write('{"type": "event", "seq": 16, "jo')  # cut short by the crash
    with open_session("fake:") as session:
        recovered = session.recover(job)
        assert recovered is not None
        assert recovered.outcome == "crashed"
        assert {entry.error_code for entry in recovered.items} <= {None, "truncated"}
        assert any(entry.blocks for entry in recovered.items)
        session.forget(job.id)
        assert not journal.exists()


def test_die_once_then_the_same_command_continues(make_job) -> None:
    uri = "fake:?mode=die_once=12"
    with open_session(uri) as session, pytest.raises(DeviceError):
        session.measure(make_job())
    with open_session(uri) as session:
        assert session.recover(make_job()) is not None
        session.forget("job")
        assert session.measure(make_job("second")).outcome == "done"


def test_lease_of_a_dead_process_is_free(make_job) -> None:
    first = open_session("fake:")
    first.measure(make_job("one"))
    os.kill(first._channel.pid, signal.SIGKILL)
    time.sleep(0.05)
    with open_session("fake:") as second:
        assert second.measure(make_job("two")).outcome == "done"
    first.close()


def test_two_sessions_take_turns(make_job) -> None:
    with open_session("fake:?lease_s=0.2") as one, open_session("fake:") as two:
        assert one.measure(make_job("one")).outcome == "done"
        two._link.owner = "another-owner"
        two._link.timeouts = replace(two._link.timeouts, lease_other_s=0.2)
        with pytest.raises(DeviceError, match="is in use by") as caught:
            two.measure(make_job("two"))
        assert caught.value.retryable
        one.close()
        assert two.measure(make_job("two")).outcome == "done"
