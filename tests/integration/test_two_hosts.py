"""More than one host, more than one board."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_host import MEASURED, Host, Reached
from integration_models import SMALL, convolution

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_two_boards_measure_at_once(by_ssh: Reached, by_adb: Reached, tmp_path: Path) -> None:
    files = [str(convolution(tmp_path / f"{k}.onnx", seed=5000 + k)) for k in range(4)]
    running = [
        reached.host.start("measure", *files, "--device", reached.name)
        for reached in (by_ssh, by_adb)
    ]
    both_at_once = 0
    while any(process.poll() is None for process in running):
        busy = [
            any("hwnas-agent" in entry.command for entry in reached.board.processes())
            for reached in (by_ssh, by_adb)
        ]
        both_at_once += all(busy)
        time.sleep(0.2)
    for process, reached in zip(running, (by_ssh, by_adb), strict=True):
        said = reached.host.finish(process)
        assert said.status in MEASURED, said.errors
        assert len(said.data["measurements"]) == len(files)
    assert both_at_once >= 3


def test_a_board_serves_one_host_at_a_time(
    by_ssh: Reached, make_host: Callable[[str], Host], tmp_path: Path
) -> None:
    """The second host is told who has the board; later the same command succeeds."""
    second = make_host("second")
    second.run("devices", "add", "theirs", by_ssh.uri)
    second.run("devices", "trust", "theirs", "--yes")
    model = str(convolution(tmp_path / "net.onnx", seed=6000))
    first = by_ssh.host.start(
        "measure", SMALL[0], "--device", by_ssh.name, "--settings", "publication"
    )
    try:
        while not any("worker" in entry.command for entry in by_ssh.board.processes()):
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.2)
        time.sleep(5.0)
        refused = second.ask("measure", model, "--device", "theirs")
    finally:
        held = first.poll() is None
        first.terminate()
        by_ssh.host.finish(first)
    assert held
    assert refused.status == 4, refused.errors
    assert "[board_busy]" in refused.errors
    assert len(refused.errors.strip().splitlines()[-1]) < 400
    assert "Traceback" not in refused.errors
    said = second.ask("measure", model, "--device", "theirs")
    assert said.status in MEASURED, said.errors
    assert len(said.data["measurements"]) == 1
