"""`hwnas train network` as people type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from image_folders import write_cifar10

from hwnas_sdk.cli.main import main
from hwnas_sdk.cli.train_network_cmd import TASKS
from hwnas_sdk.networks.training import tasks

CELL = "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture(autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(tmp_path: Path, *options: str, arch: str = CELL) -> list[str]:
    return [
        "train", "network", arch, "--task", "cifar10", "--data-dir", str(tmp_path),
        "-o", str(tmp_path / "out" / "net.safetensors"), "--json", "-q", *options,
    ]  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], argv: list[str], code: int = 0) -> dict[str, Any]:
    assert main(argv) == code, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_the_tasks_are_those_that_exist() -> None:
    assert tuple(tasks.TASKS) == TASKS


def test_trains_and_has_a_board_check_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_cifar10(tmp_path, n=3)
    answer = call(
        capsys,
        command(tmp_path, "--epochs", "1", "--device", "fake://?mode=ok", "--images", "2",
                "--cutout", "8", "--label-smoothing", "0.1", "--seed", "4"),
    )  # fmt: skip
    assert set(answer) >= {"model", "metrics", "onnx", "arch", "task", "epochs", "seed", "device"}
    assert set(answer["metrics"]) == {
        "valid_accuracy_pct", "test_accuracy_pct", "error_pct", "train_loss",
    }  # fmt: skip
    assert (answer["task"], answer["epochs"], answer["seed"]) == ("cifar10", 1, 4)
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "net.json", "net.onnx", "net.safetensors",
    ]  # fmt: skip
    settings = json.loads((folder / "net.json").read_text())["settings"]
    assert (settings["cutout"], settings["label_smoothing"], settings["seed"]) == (8, 0.1, 4)
    board = answer["device"]
    assert (board["n_images"], board["agreement_pct"]) == (2, 100)
    assert board["origin"] == "simulated"
    # The weights are what `export` takes.
    again = call(
        capsys,
        ["export", CELL, "--dataset", "cifar10", "--weights", answer["model"],
         "-o", str(tmp_path / "again.onnx"), "--json"],
    )  # fmt: skip
    assert again["sha256"] == answer["onnx_sha256"]


def test_errors_come_before_the_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = call(capsys, command(tmp_path), code=6)["error"]
    assert missing["code"] == "data_missing"
    assert "data_batch_1" in missing["message"]
    write_cifar10(tmp_path, n=2)
    cases = [
        (command(tmp_path, arch=DEAD), 3, "dead_cell"),
        (command(tmp_path, arch="nonsense"), 3, "bad_architecture"),
        (command(tmp_path, "--device", "sim://eyeriss"), 3, "no_outputs"),
        (command(tmp_path, "--device", "nobody"), 3, "unknown_device"),
        (command(tmp_path, "--torch-device", "abacus"), 3, "unknown_torch_device"),
        (command(tmp_path, "-o", str(tmp_path / "net.onnx")), 3, "bad_output"),
        (command(tmp_path, "--task", "digits"), 3, "config"),
    ]
    for argv, code, name in cases:
        error = call(capsys, argv, code=code)["error"]
        assert error["code"] == name
    assert not (tmp_path / "out" / "net.safetensors").exists()


def test_a_bad_measurement_is_an_error_and_is_not_trained_for_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_cifar10(tmp_path, n=2)
    argv = command(tmp_path, "--epochs", "1", "--device", "fake://?mode=nan")
    assert main(argv) == 5
    assert (tmp_path / "out" / "net.checkpoint").exists()
    capsys.readouterr()


def test_without_torch_the_extra_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    error = call(capsys, command(tmp_path), code=3)["error"]
    assert error["code"] == "missing_extra"
    assert "hwnas-sdk[torch]" in error["hint"]


def test_the_plan_says_what_it_would_cost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_cifar10(tmp_path, n=2)
    plan = call(capsys, command(tmp_path, "--epochs", "3", "--device", "fake://", "--dry-run"))
    assert plan["dry_run"] is True
    assert (plan["epochs"], plan["training_images"]) == (3, 9)
    assert plan["training_macs"] % (3 * 9 * 3) == 0
    assert plan["training_macs"] > 3 * 9 * 3 * 1e6
    assert plan["estimated_board_s"] > 0
    assert not (tmp_path / "out" / "net.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_without_warning_it_ends_in_the_same_weights(tmp_path: Path) -> None:
    write_cifar10(tmp_path, n=4)

    def argv(name: str) -> list[str]:
        output = str(tmp_path / f"{name}.safetensors")
        return [*command(tmp_path, "--epochs", "6"), "-o", output]

    killed = subprocess.Popen(
        [sys.executable, "-m", "hwnas_sdk.cli.main", *argv("killed")],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 500
    while not (tmp_path / "killed.checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(100) == -signal.SIGKILL
    assert (tmp_path / "killed.checkpoint").exists()  # it was killed while training, not before
    assert not (tmp_path / "killed.safetensors").exists()
    for name in ("killed", "whole"):
        assert main(argv(name)) == 0
    weights = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]
