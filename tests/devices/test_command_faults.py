"""A board without Python when links break, hosts collide and processes are killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from command_rig import Rig
from local_board import LocalShell

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.jobs import MeasureJob
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.testing.device import TINY


@pytest.mark.slow
def test_hanging_network_ends_at_its_deadline(rig: Rig, monkeypatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.command_job.CALIBRATE_LIMIT_S", 1)
    with rig.open() as session:
        result = session.measure(rig.job("hang", rig.item("h", "hang"), sentinel=None))
        assert [entry.error_code for entry in result.items] == ["deadline"]
        assert rig.runs() == []


def test_interrupt_ends_the_job_on_the_board(rig: Rig) -> None:
    ran = []

    def stop(event) -> None:
        if event.data.get("event") == "block":
            ran.extend(rig.runs())
            raise KeyboardInterrupt

    job = rig.job("cut", rig.item("s", "slow"), sentinel=None)
    with rig.open() as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(job, on_event=stop)
        assert not (rig.work / "lease.d").exists()
        assert ran
        assert rig.runs() == []
        assert (rig.work / "jobs" / "cut" / "state").read_text() == "cancelled\n"
        assert session.recover(job) is None  # its only network was not finished


class _CutShell(LocalShell):
    """A link that breaks for good once the second plan is there."""

    cut = False

    def run(self, command, **options):
        if self.cut:
            raise DeviceError("gone", device_id="shelf", code="link_lost", retryable=True)
        done = super().run(command, **options)
        self.cut = "plan.2 plan.2" in command
        return done


def test_lost_link_loses_nothing(rig: Rig, monkeypatch) -> None:
    job = rig.job("lost")
    monkeypatch.setattr("command_rig.LocalShell", _CutShell)
    with rig.open(timeouts=Timeouts(reconnect_s=0.1)) as session:
        with pytest.raises(DeviceError) as caught:
            session.measure(job)
        assert caught.value.code == "link_lost"
    monkeypatch.undo()
    with rig.open() as session:
        result = session.recover(job)  # waits for the end
        assert result is not None
        assert result.outcome == "done"
        assert [len(entry.blocks) for entry in result.items] == 2 * [TINY.max_blocks]
        assert result.environment["recovered"] is True
        assert session.recover(rig.job("other")) is None


@pytest.mark.slow
def test_short_break_of_the_link_is_bridged(rig: Rig, monkeypatch) -> None:
    class Flaky(LocalShell):
        n_broken = 0

        def run(self, command, **options):
            if "for f in snap" in command and self.n_broken < 2:
                self.n_broken += 1
                raise DeviceError("gone", device_id="shelf", code="link_lost", retryable=True)
            return super().run(command, **options)

    monkeypatch.setattr("command_rig.LocalShell", Flaky)
    with rig.open() as session:
        result = session.measure(rig.job("flaky", rig.item("a"), sentinel=None))
        assert session._shell.n_broken == 2
    assert result.outcome == "done"


def _in_thread(session: CommandSession, job: MeasureJob) -> tuple[threading.Thread, list]:
    results: list = []
    thread = threading.Thread(target=lambda: results.append(session.measure(job)))
    thread.start()
    return thread, results


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 10.0
    while not path.exists():
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_hosts_take_turns(rig: Rig) -> None:
    first, second = (
        rig.open(owner="first"),
        rig.open(owner="second", timeouts=Timeouts(lease_other_s=0.3)),
    )
    thread, results = _in_thread(first, rig.job("one", rig.item("s", "slow"), sentinel=None))
    try:
        _wait_for(rig.work / "lease.d" / "holder")
        with pytest.raises(DeviceError) as caught:
            second.measure(rig.job("two", sentinel=None))
        assert caught.value.code == "board_busy"
        assert "'first'" in caught.value.message
        with pytest.raises(DeviceError) as caught:
            second.clean(frozenset())
        assert caught.value.code == "board_busy"
    finally:
        thread.join()
    assert results[0].outcome == "done"
    assert second.measure(rig.job("two", rig.item("a"), sentinel=None)).outcome == "done"
    first.close()
    second.close()


def _runs(pid: str) -> bool:
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_killed_script_leaves_nothing_behind(rig: Rig) -> None:
    """Its lease is taken over, and the runner it had started is ended first."""
    session = rig.open()
    thread, results = _in_thread(session, rig.job("dies", rig.item("h", "hang"), sentinel=None))
    errors: list = []
    threading.excepthook, hook = (lambda args: errors.append(args.exc_value)), threading.excepthook
    try:
        runner = rig.work / "lease.d" / "runner"
        _wait_for(runner)
        while not (words := runner.read_text().split()):
            time.sleep(0.02)
        holder = (rig.work / "lease.d" / "holder").read_text().split()[0]
        session._shell.run(f"kill -9 {holder}")
        thread.join()
    finally:
        threading.excepthook = hook
    assert results == []
    assert errors[0].code == "agent_died"
    assert _runs(words[0])
    result = session.measure(rig.job("next", rig.item("a"), sentinel=None))
    assert result.outcome == "done"
    assert not _runs(words[0])
    session.close()
