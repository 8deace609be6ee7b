"""The whole journey on the emulated board, by the real command line, over SSH and over ADB.

A machine that is busy otherwise may let emulated measurements time out; then they are invalid but
still there, so nothing here depends on their being valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration_host import MEASURED, OUTPUT_FLAGS, Host, Reached, nothing_left
from integration_models import SMALL, convolution

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.dataset import build_dataset
from hwnas_sdk.store.sqlite import MeasurementStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def measure(reached: Reached, *words: str) -> list[dict[str, Any]]:
    """Measure on the board; what must hold of every measurement is checked here."""
    said = reached.host.ask("measure", *words, "--device", reached.name)
    assert said.status in MEASURED, said.errors
    measurements: list[dict[str, Any]] = said.data["measurements"]
    for measurement in measurements:
        assert "emulated" in measurement["flags"]
        # The board's output was compared with this host's, and they agree.
        assert not OUTPUT_FLAGS & set(measurement["flags"]), measurement
        assert measurement["latency_ms"] > 0
        assert measurement["origin"] == "measured"
    assert nothing_left(reached.board)
    return measurements


def test_a_bare_board_becomes_ready(reached: Reached) -> None:
    added, done, probed = (reached.said[verb].data for verb in ("add", "setup", "probe"))
    assert added["ready"] is False
    assert f"hwnas devices setup {reached.name}" in added["next"]
    if reached.way == "ssh":
        assert added["reason"] == "host_key_unknown"
    assert done["own_environment"] is True
    assert probed["machine"] == "emulated"
    assert probed["runtimes"]["ort"] == done["packages"]["onnxruntime"]
    assert probed["cores"] >= 1
    assert probed["power_reason"] == "no_sensor"
    assert nothing_left(reached.board)


def test_setting_up_again_changes_nothing(reached: Reached) -> None:
    again = reached.host.run("devices", "setup", reached.name)
    assert again["changed"] is False
    # Another test may have brought TVM meanwhile.
    assert again["packages"].items() >= reached.said["setup"].data["packages"].items()


def test_three_small_networks_are_measured(reached: Reached) -> None:
    measurements = measure(reached, *SMALL)
    assert [entry["arch"] for entry in measurements] == list(SMALL)
    assert all(entry["n_samples"] >= 5 for entry in measurements)


def test_an_emulated_number_enters_no_dataset(reached: Reached, tmp_path: Path) -> None:
    measure(reached, str(convolution(tmp_path / "net.onnx")))
    with MeasurementStore.open(reached.host.home / "store.sqlite", read_only=True) as store:
        device = next(spec for spec in store.devices() if spec.name == reached.name)
        assert device.machine == "emulated"
        with pytest.raises(DataError) as refused:
            build_dataset(store, device_id=device.id, metric="latency_ms", space="file")
    assert refused.value.code == "emulated_device"


def test_the_governor_is_restored(by_ssh: Reached, tmp_path: Path) -> None:
    board = by_ssh.board
    before = board.governors()
    assert set(before) == {"ondemand"}
    model = convolution(tmp_path / "net.onnx", seed=3000)
    running = by_ssh.host.start("measure", str(model), "--device", by_ssh.name)
    seen = set()
    while running.poll() is None:
        seen |= set(board.governors())
        time.sleep(0.1)
    assert by_ssh.host.finish(running).status in MEASURED
    assert "performance" in seen
    assert board.governors() == before


def test_clean_removes_what_was_pushed(reached: Reached, tmp_path: Path) -> None:
    measure(reached, str(convolution(tmp_path / "net.onnx", seed=4000)))
    said = reached.host.run("devices", "clean", reached.name)
    assert said["removed_files"] >= 1
    left = reached.board.run(
        "ls /home/pi/.local/share/hwnas/artifacts /data/local/tmp/hwnas/artifacts 2>/dev/null",
        check=False,
    ).stdout
    assert ".onnx" not in left
    assert measure(reached, str(convolution(tmp_path / "net.onnx", seed=4000)))


def test_a_board_that_is_removed_is_forgotten(
    by_ssh: Reached, make_host: Callable[[str], Host]
) -> None:
    host = make_host("visitor")
    host.run("devices", "add", "guest", by_ssh.uri)
    host.run("devices", "trust", "guest", "--yes")
    assert host.run("devices", "probe", "guest")["machine"] == "emulated"
    host.run("devices", "remove", "guest")
    names = [entry["name"] for entry in host.run("devices", "list")["devices"]]
    assert "guest" not in names
    assert host.ask("devices", "probe", "guest").status == 3
    assert nothing_left(by_ssh.board)
