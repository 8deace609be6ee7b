"""What happens when a writer is killed at any moment, and when there are several."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_records import blocks_ns, record, registered

from hwnas_sdk.store.sqlite import MeasurementStore

WRITER = Path(__file__).with_name("store_writer.py")
PLENTY = 100_000


def start(path: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(writer: subprocess.Popen[str], delay_s: float) -> list[list[str]]:
    """Let it acknowledge at least one item, then kill it; return what it acknowledged."""
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(delay_s)
    writer.send_signal(signal.SIGKILL)
    lines = [first, *writer.stdout.read().splitlines(keepends=True)]
    writer.stdout.close()
    writer.wait()
    return [line.split() for line in lines if line.endswith("\n")]


def assert_nothing_lost(path: Path, acknowledged: list[list[str]]) -> int:
    """Everything acknowledged is there, once, with its samples; return how many are stored."""
    with MeasurementStore.open(path) as store:
        assert store.check() == []
        by_run = {run.id: store.done_items(run.id) for run in store.runs()}
        for run_id, item, number in acknowledged:
            samples = store.samples_ns(by_run[run_id][item])
            assert [b.tolist() for b in samples] == [b.tolist() for b in blocks_ns(int(number))]
        return store.info()["counts"]["measurement"]


def survive_kills(path: Path, n_kills: int) -> None:
    rng = random.Random(4)
    acknowledged: list[list[str]] = []
    for _ in range(n_kills):
        said = kill_after(start(path, "a", PLENTY), rng.uniform(0.0, 0.15))
        acknowledged += said
        n_stored = assert_nothing_lost(path, said)
        # A killed writer may have stored one more than it could say; never more than one.
        assert len(acknowledged) <= n_stored <= len(acknowledged) + n_kills
    assert_nothing_lost(path, acknowledged)  # nor by any of the later kills
    assert len({run_id for run_id, _, _ in acknowledged}) == 1  # one run, resumed each time
    items = [item for _, item, _ in acknowledged]
    assert len(items) == len(set(items))  # nothing was measured twice


@pytest.mark.slow
def test_kill_9_loses_and_repeats_nothing(tmp_path: Path) -> None:
    survive_kills(tmp_path / "store.sqlite", 5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_kill_9_lose_and_repeat_nothing(tmp_path: Path) -> None:
    survive_kills(tmp_path / "store.sqlite", 100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_while_a_store_is_being_made(tmp_path: Path) -> None:
    rng = random.Random(5)
    began = time.monotonic()
    writer = start(tmp_path / "warm.sqlite", "a", 1)
    writer.communicate()
    start_up_s = time.monotonic() - began
    for number in range(40):
        path = tmp_path / f"{number}" / "store.sqlite"
        writer = start(path, "a", 1)
        time.sleep(start_up_s * rng.uniform(0.5, 1.0))
        writer.kill()
        writer.communicate()
        with registered(path) as store:
            assert store.check() == []
            assert len(store.measurements()) <= 1


def test_what_is_on_the_disk_at_any_moment_is_a_whole_store(tmp_path: Path) -> None:
    """Copying file and log while the writer has them open is what a power cut leaves behind."""
    path = tmp_path / "store.sqlite"
    with registered(path) as store:
        run = store.start_run("measure", {})
        for number in range(12):
            assert store.add(record(run.id, str(number)), blocks_ns(number))
            if number % 3 == 2:
                left = tmp_path / f"left{number}"
                left.mkdir()
                for suffix in ("", "-wal"):
                    shutil.copy(f"{path}{suffix}", left / f"store.sqlite{suffix}")
                with MeasurementStore.open(left / "store.sqlite") as found:
                    assert found.check() == []
                    assert len(found.done_items(run.id)) == number + 1


@pytest.mark.slow
def test_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"  # all find it missing
    writers = [start(path, prefix, 40) for prefix in ("a", "b", "a")]  # two share a run
    outputs = [writer.communicate(timeout=100)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    acknowledged = [line.split() for output in outputs for line in output.splitlines()]
    assert len(acknowledged) == 80
    assert assert_nothing_lost(path, acknowledged) == 80
    with MeasurementStore.open(path) as store:
        assert len(store.runs()) == 2


def test_the_first_openers_may_come_together(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from hwnas_sdk.store.sqlite import MeasurementStore\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "with MeasurementStore.open(Path(sys.argv[1])) as store:\n"
        "    sys.stdout.write(store.start_run('measure', {}).id)\n"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    outputs = [opener.communicate("go\n", timeout=60)[0] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 6
    assert len(set(outputs)) == 1  # all go on with the same run


def test_a_reader_beside_a_writer_sees_whole_measurements(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    writer = start(path, "a", PLENTY)
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        seen = []
        with MeasurementStore.open(path, read_only=True) as store:
            for _ in range(10):
                assert store.check() == []
                seen.append(store.info()["counts"]["measurement"])
        assert seen == sorted(seen)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
