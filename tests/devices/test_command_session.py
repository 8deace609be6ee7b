"""A board without Python, driven for real: this machine's `sh`, and test runners that keep time."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from command_rig import BENCHMARK_MODEL, PERF_TEST, Rig, records_of

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.jobs import JobItem
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.testing.device import TINY, DeviceConformance


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
        records = records_of(session, job, result)
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
        record = records_of(session, job, result)["a"]
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
