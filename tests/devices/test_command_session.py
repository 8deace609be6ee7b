"""A board without Python, driven for real: this machine's `sh`, and test runners that keep time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from local_board import LocalShell, board_processes

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.command_runners import find_runner
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.testing.device import TINY, DeviceConformance

RUNNERS = Path(__file__).parent / "runners"
PERF_TEST = RUNNERS / "test_onnxruntime_perf_test"
BENCHMARK_MODEL = RUNNERS / "test_benchmark_model"


class Rig:
    """A home folder that stands for the board, and files for it."""

    def __init__(self, folder: Path, program: Path = PERF_TEST) -> None:
        self.folder = folder
        self.program = program
        self.runner = find_runner(program.name)
        (folder / "board").mkdir()

    @property
    def work(self) -> Path:
        return self.folder / "board" / "hwnas"

    def runs(self) -> list[int]:
        """What runs on the board."""
        return board_processes(self.folder / "board")

    def open(self, *, owner: str = "tester", **options) -> CommandSession:
        return CommandSession(
            LocalShell(self.folder / "board"),
            name="shelf",
            uri="adb://SERIAL",
            owner=owner,
            work="$HOME/hwnas",
            program=self.program,
            runner=self.runner,
            **options,
        )

    def item(self, name: str, head: str = "network") -> JobItem:
        content = f"{head} {name}".encode() * 300
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{name}{self.runner.suffix}"
        path.write_bytes(content)
        artifact = Artifact(
            sha256=sha256,
            format=self.runner.suffix[1:],
            arch_id=f"test:{name}",
            folded=False,
            producer="test",
            size_bytes=len(content),
            path=str(path),
        )
        return JobItem(name, artifact.arch_id, name, artifact)

    def job(self, name: str, *items: JobItem, seed: int = 1, **changes) -> MeasureJob:
        fields = {"settings": TINY, "sentinel": self.item("sentinel").artifact, **changes}
        return MeasureJob(name, items or (self.item("a"), self.item("b")), seed=seed, **fields)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


class _Conformance(DeviceConformance):
    program: Path

    @pytest.fixture(autouse=True)
    def _board(self, tmp_path: Path) -> None:
        self._rig = Rig(tmp_path, self.program)

    def open(self) -> DeviceSession:
        return self._rig.open()

    def items(self, n: int) -> Sequence[JobItem]:
        return [self._rig.item(f"i{k}") for k in range(n)]


@pytest.mark.slow
class TestPerfTest(_Conformance):
    program = PERF_TEST


@pytest.mark.slow
class TestBenchmarkModel(_Conformance):
    program = BENCHMARK_MODEL


def _records(session: CommandSession, job: MeasureJob, result) -> dict:
    pairs = measurements_of(
        job,
        result,
        spec=session.spec,
        origin=session.origin,
        baseline_sentinel_ms=None,
        run_id="r",
        attempt_of=lambda _item: 1,
    )
    return {measurement.item: measurement for measurement, _ in pairs}


def test_a_board_that_an_agent_measures_on_is_busy(rig: Rig) -> None:
    """Agents keep a lease of their own; whoever takes one looks at the other's."""
    timeouts = Timeouts(lease_other_s=0.2)
    record = {
        "token": "t",
        "owner": "somebody",
        "pid": os.getpid(),
        "started_ticks": int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "ttl_s": 60.0,
        "beat_s": time.monotonic(),
        "children": [],
    }
    with rig.open(timeouts=timeouts) as session:
        place = rig.folder / "board" / "hwnas-agent.lease"
        place.write_text(json.dumps(record).ljust(4095) + "\n")
        with pytest.raises(DeviceError, match="in use by 'somebody'") as caught:
            session.measure(rig.job("one"))
        assert caught.value.code == "board_busy"
        assert not (rig.work / "lease.d").exists()
        place.write_text(json.dumps({**record, "beat_s": 1.0}).ljust(4095) + "\n")
        assert session.measure(rig.job("one")).outcome == "done"


def test_bad_networks_fail_alone_and_say_why(rig: Rig) -> None:
    heads = ("network", "crash", "fail", "babble")
    job = rig.job("bad", *(rig.item(head, head) for head in heads))
    with rig.open() as session:
        result = session.measure(job)
        records = _records(session, job, result)
    codes = [entry.error_code for entry in result.items]
    assert codes == [None, "runtime_crashed", "runtime_error", "parse_failed"]
    assert "signal 11" in result.items[1].error_message
    assert "Protobuf parsing failed" in result.items[2].error_message
    assert "Average inference time cost total" in records["babble"].details["raw_text"]
    assert records["network"].latency_ms > 0.0
    assert not records["network"].details.get("raw_text")


def test_samples_come_from_every_invocation(rig: Rig) -> None:
    with rig.open() as session:
        result = session.measure(rig.job("samples", rig.item("a")))
    (item,) = result.items
    assert len(item.blocks) == TINY.max_blocks
    runs = [entry["runs"] for entry in item.facts["invocations"] if entry["is_block"]]
    assert [block.samples_ns.size for block in item.blocks] == runs
    assert item.peak_memory_mib > 1.0
    # The sentinel stands before and after the network.
    assert result.sentinel[0].t_ns < item.blocks[0].t_ns < result.sentinel[-1].t_ns


def test_summaries_give_an_interval_but_no_samples(tmp_path: Path) -> None:
    rig = Rig(tmp_path, BENCHMARK_MODEL)
    job = rig.job("summary", rig.item("a"))
    with rig.open() as session:
        result = session.measure(job)
        record = _records(session, job, result)["a"]
    (item,) = result.items
    assert item.blocks == ()
    assert item.summary_latency_ms == record.latency_ms
    assert record.ci95_ms is not None
    assert record.n_samples == 0
    assert {"summary_only", "output_unchecked"} <= set(record.flags)
    assert "drift_unchecked" not in record.flags
    assert record.details["runtime"]["name"] == "litert"


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, BENCHMARK_MODEL)
    item = rig.item("a")
    other = Path(item.artifact.path).rename(tmp_path / "a.onnx")
    job = rig.job("onnx", replace(item, artifact=replace(item.artifact, path=str(other))))
    with rig.open() as session:
        (entry,) = session.measure(job).items
    assert entry.error_code == "model_unsupported"
    assert entry.error_message == "benchmark_model runs .tflite files only, not .onnx"


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
    monkeypatch.setattr("test_command_session.LocalShell", _CutShell)
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

    monkeypatch.setattr("test_command_session.LocalShell", Flaky)
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


def test_runner_problems_have_names(rig: Rig, tmp_path: Path) -> None:
    rig.program = tmp_path / "perf_test_nowhere"
    with pytest.raises(DeviceError) as caught:
        rig.open()
    assert caught.value.code == "runner_missing"
    rig.program = tmp_path / "perf_test_foreign"
    rig.program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    with pytest.raises(DeviceError) as caught:
        rig.open()
    assert caught.value.code == "runner_unusable"
    rig.program.write_text(
        '#!/bin/sh\necho \'CANNOT LINK EXECUTABLE "x": library "liby.so" not found\' >&2\nexit 1\n'
    )
    with pytest.raises(DeviceError) as caught:
        rig.open()
    assert caught.value.code == "runner_unusable"
    assert "liby.so" in caught.value.message


def test_libraries_beside_the_runner_travel_with_it(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    rig.program = Path(shutil.copy(PERF_TEST, folder))
    (folder / "libonnxruntime.so.1").write_bytes(b"library")
    with rig.open() as session:
        command = session._program.command
        assert command[0] == "env"
        assert session._shell.run(f"cat {command[1].partition('=')[2]}/lib*").text == "library"


@pytest.mark.slow
def test_clean_keeps_what_is_used(rig: Rig) -> None:
    with rig.open() as session:
        session.measure(rig.job("j", rig.item("a"), sentinel=None))
        (rig.work / "runners" / ("0" * 64)).mkdir()
        (rig.work / "artifacts" / "photo.jpg").write_text("not ours")
        cleaned = session.clean(frozenset())
        assert cleaned.files == 2  # the network and the old runner
        assert (rig.work / "jobs" / "j").exists()
        assert session.clean(frozenset(), journals=True).files == 1
        assert not (rig.work / "jobs" / "j").exists()
        assert session._program.folder in {str(path) for path in (rig.work / "runners").iterdir()}


@pytest.mark.slow
def test_damaged_file_on_the_board_is_replaced(rig: Rig) -> None:
    item = rig.item("a")
    with rig.open() as session:
        session.measure(rig.job("one", item, sentinel=None))
    (rig.work / "artifacts" / f"{item.artifact.sha256}.onnx").write_bytes(b"fail")
    with rig.open() as session:
        result = session.measure(rig.job("two", item, sentinel=None))
    assert result.items[0].error_code is None


def test_energy_is_not_guessed(rig: Rig) -> None:
    with rig.open() as session:
        job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
        (item,) = session.measure(job).items
    assert item.energy_mj is None
    assert item.energy_reason == "no_sensor"


def _battery(rig: Rig, *, status: str = "Discharging", supply: str = "0") -> Path:
    """A gauge that a thread keeps moving; returns the folder that stands for the file system."""
    root = rig.folder / "root"
    gauge = root / "sys/class/power_supply/battery"
    plug = root / "sys/class/power_supply/usb"
    for folder, texts in (
        (gauge, {"type": "Battery", "status": status, "current_now": "-300000"}),
        (plug, {"type": "USB", "online": supply}),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n")
    (gauge / "voltage_now").write_text("4000000\n")
    return root


class _Phone(LocalShell):
    """A shell with another /sys/class/power_supply."""

    root = Path("/")

    def run(self, command, **options):
        self.environ["HWNAS_SYSROOT"] = str(self.root)
        return super().run(command, **options)


@pytest.mark.parametrize(("status", "supply"), [("Charging", "0"), ("Discharging", "1")])
def test_energy_is_refused_while_charging(rig: Rig, monkeypatch, status, supply) -> None:
    monkeypatch.setattr(_Phone, "root", _battery(rig, status=status, supply=supply))
    monkeypatch.setattr("test_command_session.LocalShell", _Phone)
    with rig.open() as session:
        assert session.spec.power_reason == "charging"
        job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
        (item,) = session.measure(job).items
    assert (item.energy_mj, item.energy_reason) == (None, "charging")


@pytest.mark.slow
def test_energy_from_the_battery(rig: Rig, monkeypatch) -> None:
    """300 mA idle and 500 mA while the runner runs, 4 V: 1.2 W and 2.0 W."""
    root = _battery(rig)
    current = root / "sys/class/power_supply/battery/current_now"
    monkeypatch.setattr(_Phone, "root", root)
    monkeypatch.setattr("test_command_session.LocalShell", _Phone)
    monkeypatch.setattr("hwnas_sdk.devices.command_files.IDLE_S", 3)
    monkeypatch.setattr("hwnas_sdk.devices.command_energy.ACTIVE_S", 6.0)
    over = threading.Event()

    def load() -> None:
        number = 0
        while not over.wait(0.1):
            number += 1
            runner = rig.work / "lease.d" / "runner"
            busy = runner.exists() and runner.read_text().strip()
            scratch = root / "now"
            scratch.write_text(f"{-(500_000 if busy else 300_000) + 500 * (number % 7)}\n")
            scratch.replace(current)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        with rig.open() as session:
            assert session.spec.power_source == "battery"
            job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
            result = session.measure(job)
            record = _records(session, job, result)["a"]
            assert session.recover(job).items == result.items
    finally:
        over.set()
        thread.join()
    energy = record.details["energy"]
    assert energy["reason"] is None
    assert energy["idle_before_mw"] == pytest.approx(1200.0, rel=0.05)
    assert energy["active_mw"] == pytest.approx(2000.0, rel=0.05)
    assert record.energy_mj == pytest.approx(2.0 * energy["loop_ms"], rel=0.05)
    assert record.energy_net_mj == pytest.approx(0.8 * energy["loop_ms"], rel=0.1)
    assert len(result.items[0].blocks) == TINY.max_blocks
