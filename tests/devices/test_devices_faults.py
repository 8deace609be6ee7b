"""Every way an agent can misbehave, over real pipes, and what the host says about it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.flags import status_of
from hwnas_sdk.devices import measurements_of, open_session


def _records(session, job, result):
    return [
        record
        for record, _ in measurements_of(
            job,
            result,
            spec=session.spec,
            origin=session.origin,
            baseline_sentinel_ms=None,
            run_id="r",
            attempt_of=lambda _item: 1,
        )
    ]


@pytest.mark.parametrize(
    ("mode", "code", "says", "retryable"),
    [
        ("garbage", "agent_protocol", "not JSON.*Segmentation fault", False),
        ("half_json", "agent_protocol", "not JSON", False),
        ("half_json_eof", "agent_died", "in the middle of a message", True),
        ("out_of_order", "agent_protocol", "out of order", False),
        ("event_order", "agent_protocol", "event 5 came after event 3", False),
        ("die_after=4", "agent_died", "exit status 9.*last words: fake: told to die", True),
        ("hang", "agent_hung", "did not answer 'measure'", True),
        ("busy=1000", "board_busy", "in use by 'somebody-else'", True),
    ],
)
def test_faults_during_a_job(mode, code, says, retryable, make_job) -> None:
    patience_s = 0.5 if mode == "hang" else 10.0
    uri = f"fake:?mode={mode}&reply_s={patience_s}&silence_s=0.3&lease_s=0.3"
    with open_session(uri) as session:
        with pytest.raises(DeviceError, match=says) as caught:
            session.measure(make_job())
        assert caught.value.code == code
        assert caught.value.retryable is retryable
        assert caught.value.hint
        assert caught.value.device_id == "fake"
        assert "\n" not in str(caught.value)
        if code != "board_busy":  # a broken wire stays broken
            with pytest.raises(DeviceError) as again:
                session.probe()
            assert again.value.code == code


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("die_at_start", "agent_died"),
        ("hang_hello", "agent_hung"),
        ("old_protocol", "protocol_version"),
    ],
)
def test_faults_at_the_start(mode, code) -> None:
    patience = "&reply_s=-4.5" if mode == "hang_hello" else ""  # half a second in all
    with pytest.raises(DeviceError) as caught:
        open_session(f"fake:?mode={mode}{patience}")
    assert caught.value.code == code


def test_busy_board_is_waited_for(make_job) -> None:
    events = []
    with open_session("fake:?mode=busy=2") as session:
        result = session.measure(make_job(), on_event=events.append)
    assert result.outcome == "done"
    waiting = [event.message for event in events if "busy" in event.message]
    assert len(waiting) == 1
    assert "somebody-else" in waiting[0]


def test_lost_lease_is_taken_again(make_job) -> None:
    with open_session("fake:?mode=lease_lost") as session:
        assert session.measure(make_job()).outcome == "done"


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("mismatch", "output_mismatch"),
        ("nan", "output_not_finite"),
        ("drift", "sentinel_drift"),
        ("contended", "contended"),
    ],
)
def test_facts_become_flags(mode, flag, make_job) -> None:
    with open_session(f"fake:?mode={mode}") as session:
        job = make_job()
        records = _records(session, job, session.measure(job))
    assert flag in records[0].flags
    assert records[0].status == "invalid"


def test_good_run_has_no_flags(make_job) -> None:
    with open_session("fake:") as session:
        job = make_job()
        result = session.measure(job)
        for record in _records(session, job, result):
            assert record.flags == ()
            assert status_of(record.flags) == "valid"
    assert result.busy_s > 0.0
    assert result.wall_s >= result.busy_s


@pytest.mark.parametrize(
    ("mode", "code"), [("crash_item=2", "runtime_crashed"), ("wrong_hash", "artifact_corrupt")]
)
def test_bad_items_fail_alone(mode, code, make_job) -> None:
    with open_session(f"fake:?mode={mode}") as session:
        job = make_job(sentinel=None)
        result = session.measure(job)
    codes = [entry.error_code for entry in result.items]
    assert codes == ([None, code, None] if mode != "wrong_hash" else [code] * 3)


def test_corrupt_artifact_is_not_pushed(make_job) -> None:
    job = make_job()
    Path(job.items[1].artifact.path).write_bytes(b"truncated")
    with open_session("fake:") as session:
        result = session.measure(job)
        pushed = {path.stem for path in _resources.board_work_path("fake").glob("artifacts/*")}
    assert [entry.error_code for entry in result.items] == [None, "artifact_corrupt", None]
    assert job.items[1].artifact.sha256 not in pushed
    assert len(pushed) == 3


def test_damaged_file_on_the_board_is_replaced(make_job) -> None:
    job = make_job(n=1)
    with open_session("fake:") as session:
        session.measure(job)
    target = _resources.board_work_path("fake") / f"artifacts/{job.items[0].artifact.sha256}.onnx"
    target.unlink()
    target.write_bytes(b"bit rot")
    with open_session("fake:") as session:
        assert session.measure(make_job("again", n=1)).items[0].error_code is None


def test_no_file_at_all_is_an_error_of_the_item(make_job) -> None:
    job = make_job(n=1)
    Path(job.items[0].artifact.path).unlink()
    with open_session("fake:") as session:
        (entry,) = session.measure(job).items
    assert entry.error_code == "artifact_missing"


def test_ctrl_c_cancels_and_keeps_what_was_finished(make_job) -> None:
    job = make_job(n=4)
    seen = []

    def interrupt_at_first_finish(event) -> None:
        seen.append(event)
        if event.done == 1:
            raise KeyboardInterrupt

    # Event 20 is the first that says "finished"; the board then waits for what the host does.
    with open_session("fake:?mode=hold=21") as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(job, on_event=interrupt_at_first_finish)
        # The session is still good, the board is free, and the journal has the rest.
        recovered = session.recover(job)
        assert recovered is not None
        assert recovered.outcome == "cancelled"
        records = _records(session, job, recovered)
        session.forget(job.id)
        assert session.measure(make_job("next")).outcome == "done"
    # What was not finished gives no record and uses up no attempt.
    assert 1 <= len(records) < 4
    assert all(record.status == "valid" for record in records)


def test_job_cancelled_before_anything_was_finished_is_unknown(make_job) -> None:
    job = make_job()

    def interrupt(_event) -> None:
        raise KeyboardInterrupt

    with open_session("fake:?mode=slow&delay_s=0.02") as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(job, on_event=interrupt)
        assert session.recover(job) is None
        session.forget(job.id)


@pytest.mark.alone
def test_ctrl_c_in_a_silent_wait_returns_at_once(make_job) -> None:
    timer = threading.Timer(0.4, signal.raise_signal, [signal.SIGINT])
    with open_session("fake:?mode=slow&delay_s=1.0&reply_s=5") as session:
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            session.measure(make_job(n=1))
        assert time.monotonic() - began_s < 6.0


def test_slow_agent_is_asked_whether_it_lives(make_job) -> None:
    """Silence beyond silence_s leads to a fetch; the replayed events are not taken twice."""
    with open_session("fake:?mode=slow&delay_s=0.08&silence_s=0.03") as session:
        job = make_job(n=1)
        result = session.measure(job)
    assert result.outcome == "done"
    with open_session("fake:") as session:
        again = session.recover(job)
    assert again is not None
    assert again.items == result.items
    assert again.sentinel == result.sentinel


def test_killed_agent_names_the_signal(make_job) -> None:
    with open_session("fake:?mode=slow&delay_s=0.05") as session:
        pid = session._channel.pid

        def kill(_event) -> None:
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(DeviceError, match="ended by SIGKILL") as caught:
            session.measure(make_job(), on_event=kill)
    assert caught.value.code == "agent_died"


def test_no_process_and_no_thread_is_left(make_job) -> None:
    before = set(threading.enumerate())  # one that another test left may end meanwhile
    session = open_session("fake:")
    pid = session._channel.pid
    session.measure(make_job())
    session.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_interpreter_that_does_not_exist() -> None:
    from hwnas_sdk.devices.transports.local import LocalTransport

    transport = LocalTransport(_resources.home(), ["/nonexistent/python"], device_id="x")
    with pytest.raises(DeviceError, match="cannot be started") as caught:
        transport.start()
    assert caught.value.code == "agent_not_started"


def test_unwritable_work_folder(tmp_path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    with pytest.raises(DeviceError, match="cannot be written") as caught:
        open_session(f"fake:?work={blocker}")
    assert caught.value.code == "deploy_failed"
