"""`hwnas train hypernetwork`, and what searches and selections make of it, as people type it."""

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
from hwnas_sdk.networks.training import sotl

pytest.importorskip("sklearn")

FAKE = "fake://?mode=ok"
EVERY_EPOCH = """
import functools, sys
from hwnas_sdk.cli.main import main
from hwnas_sdk.workflows import train_supernet as work
work.train_task_hypernetwork = functools.partial(
    work.train_task_hypernetwork, checkpoint_every_s=0.0
)
sys.exit(main(sys.argv[1:]))
"""
"""The command with a checkpoint after each epoch instead of each 20 s."""
SMALL = ("--steps", "1", "--batch-size", "16", "--channels", "2", "--cells", "1")


@pytest.fixture(autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def call(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json", "-q"]) == code, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def train(path: Path, *options: str) -> list[str]:
    return ["train", "hypernetwork", "-o", str(path), "--epochs", "1", *options]


def test_from_images_to_selected_candidates(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    net, front, chosen = (tmp_path / name for name in ("net.safetensors", "f.json", "c.json"))
    answer = call(capsys, *train(net, "--task", "digits", *SMALL))
    assert set(answer) >= {"model", "supernet", "objectives", "metrics", "duration_s"}
    assert {"net.safetensors", "net.json", "net.supernet.safetensors", "net.supernet.json"} == {
        path.name for path in tmp_path.iterdir()
    }
    asked = ("search", "--device", FAKE, "--zero-measurements", "--method", "modnas",
             "--hypernetwork", str(net), "--candidates", "3", "-o", str(front))  # fmt: skip
    found = call(capsys, *asked)
    assert (found["method"], len(found["front"])) == ("modnas", 3)
    select = ("select", str(front), "-o", str(chosen), "--supernet", answer["supernet"])
    # What interrupted trainings of that name left is theirs.
    others = [tmp_path / name for name in ("c.checkpoint", "c.json.selection")]
    for path in others:
        path.write_bytes(b"of another command")
    by_supernet = call(capsys, *select, "--by", "inherited")
    assert {path.read_bytes() for path in others} == {b"of another command"}
    others[1].unlink()
    assert len(by_supernet["candidates"]) == 3
    for row in by_supernet["candidates"]:
        assert row["score"] == pytest.approx(100 - row["inherited_accuracy_pct"])
        assert row["trained_accuracy_pct"] is None
    left = json.loads(chosen.read_text())
    kept = [row["arch"] for row in by_supernet["candidates"] if row["kept"]]
    assert [row["arch"] for row in left["candidates"]] == kept
    assert len(kept) == by_supernet["n_kept"]
    assert "selection" in left["provenance"]
    # What is left is a front like any other.
    assert len(call(capsys, "verify", str(chosen), "--device", FAKE)["candidates"]) == len(kept)
    errors = [
        ((*select, "--by", "inherited", "--task", "cifar10"), 3, "no_data_dir"),
        ((*select, "--by", "inherited", "--epochs", "12"), 3, "config"),
        ((*select, "--by", "inherited", "--seed", "777"), 3, "config"),
        ((*select, "--by", "inherited", "--data-dir", str(tmp_path)), 3, "config"),
        (("select", str(front), "-o", str(chosen), "--data-dir", str(tmp_path)), 3, "config"),
        (("select", str(front), "-o", str(front)), 3, "config"),
        (("select", str(front), "-o", str(chosen), "--by", "inherited"), 3, "config"),
        (("select", str(tmp_path / "no.json"), "-o", str(chosen)), 6, "bad_front"),
        (("select", str(front), "-o", str(chosen), "--supernet", str(net)), 6, "other_kind"),
    ]
    for argv, code, name in errors:
        error = call(capsys, *argv, code=code)["error"]
        assert (error["code"], argv) == (name, argv)
        assert "\n" not in error["message"]


def test_the_defaults_are_the_authors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"[default: {sotl.EPOCHS}; x>=1]" in words
    assert f"[default: {sotl.SEED}; x>=0]" in words


@pytest.mark.slow
def test_short_trainings_select(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    front, chosen, net = (tmp_path / name for name in ("f.json", "c.json", "n.safetensors"))
    supernet = call(capsys, *train(net, "--task", "digits", *SMALL))["supernet"]
    call(capsys, "search", "--device", FAKE, "--zero-measurements", "--candidates", "3",
         "-o", str(front))  # fmt: skip
    answer = call(capsys, "select", str(front), "-o", str(chosen), "--epochs", "1",
                  "--supernet", supernet)  # fmt: skip
    assert answer["by"] == "sotl"
    for row in answer["candidates"]:
        assert row["score"] > 0
        assert 0 <= row["trained_accuracy_pct"] <= 100
        assert 0 <= row["inherited_accuracy_pct"] <= 100
    assert -1 <= answer["kendall_inherited_trained"] <= 1
    assert not list(tmp_path.glob("*.selection*"))


def test_the_checkpoint_of_a_selection_is_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that ends in .checkpoint is a result like any other, and a training's stays."""
    called = []

    def short(*args: Any, checkpoint: Path, **options: Any) -> sotl.TrainResult:
        checkpoint.write_bytes(b"under way")
        called.append(checkpoint.name)
        return sotl.TrainResult((1.0,), (50.0,), 0.0)

    monkeypatch.setattr(sotl, "short_training", short)
    front, chosen = tmp_path / "f.json", tmp_path / "out.checkpoint"
    call(capsys, "search", "--device", FAKE, "--zero-measurements", "--candidates", "2",
         "-o", str(front))  # fmt: skip
    (tmp_path / "c.checkpoint").write_bytes(b"of a training")
    for path in (chosen, tmp_path / "c.json"):
        call(capsys, "select", str(front), "-o", str(path), "--epochs", "1")
        assert "selection" in json.loads(path.read_text())["provenance"]
    assert called[:2] == ["out.checkpoint.selection.1", "out.checkpoint.selection.2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "c.checkpoint", "c.json", "f.json", "out.checkpoint",
    ]  # fmt: skip
    assert (tmp_path / "c.checkpoint").read_bytes() == b"of a training"


def test_three_objectives_from_training_to_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas_sdk.workflows import search_devices

    monkeypatch.setattr(search_devices, "memory_mib", lambda space, cells: 1.0 + cells.sum(axis=1))
    two, three = tmp_path / "two.safetensors", tmp_path / "three.safetensors"
    call(capsys, *train(two))
    answer = call(capsys, *train(three, "--objectives", "error,latency,memory"))
    assert answer["objectives"] == ["error", "latency", "memory"]
    call(capsys, "profile", FAKE, "-o", str(tmp_path / "p.yaml"))
    search = ("search", "--device", FAKE, "--method", "modnas", "--candidates", "4",
              "--hypernetwork")  # fmt: skip
    wanted = ("--objectives", "error,memory,latency")
    found = call(capsys, *search, str(three), *wanted)
    assert found["objectives"] == ["error", "memory", "latency"]
    assert 1 <= len(found["front"]) <= 4
    assert all(row["peak_memory_mib"] > 0 for row in found["front"])
    for argv in ((*search, str(two), *wanted), (*search, str(three))):
        error = call(capsys, *argv, code=3)["error"]
        assert error["code"] == "other_objectives"
        assert "\n" not in error["message"]
    error = call(capsys, *search[:-1], *wanted, code=3)["error"]
    assert "the shipped hypernetwork answers error and latency only" in error["message"]


def test_errors_come_before_the_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net = tmp_path / "net.safetensors"
    digits = ("--task", "digits")
    cases = [
        (("--steps", "2"), 3, "--steps is of no use"),
        (("--torch-device", "cuda"), 3, "--torch-device is of no use"),
        ((*digits, "--estimator", "exact"), 3, "one at a time"),
        ((*digits, "--data-dir", str(tmp_path)), 3, "of no use with the digits"),
        (("--objectives", "error,latency,energy"), 3, "cannot learn energy"),
        ((*digits, "--objectives", "error,memory"), 3, "not what a hypernetwork"),
        (("--task", "cifar10", "--data-dir", str(tmp_path / "none")), 6, "there is no file"),
        ((*digits, "--torch-device", "abacus"), 3, "torch cannot work on"),
    ]
    for options, code, text in cases:
        message = call(capsys, *train(net, *options), code=code)["error"]["message"]
        assert text in message
        assert "\n" not in message
    assert not net.exists()


@pytest.mark.slow
def test_photographs_come_from_the_users_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_cifar10(tmp_path, n=6)
    net = tmp_path / "net.safetensors"
    answer = call(capsys, *train(net, "--task", "cifar10", "--data-dir", str(tmp_path), *SMALL))
    assert json.loads(Path(answer["supernet"]).with_suffix(".json").read_text())["data"][
        "task"
    ] == "cifar10"  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_without_warning_it_ends_in_the_same_weights(tmp_path: Path) -> None:
    def argv(name: str) -> list[str]:
        path = tmp_path / f"{name}.safetensors"
        return [*train(path, "--task", "digits", *SMALL), "--epochs", "12", "--steps", "2", "-q"]

    killed = subprocess.Popen(
        [sys.executable, "-c", EVERY_EPOCH, *argv("killed")],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 400
    while not (tmp_path / "killed.checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(100) == -signal.SIGKILL
    assert (tmp_path / "killed.checkpoint").exists()
    assert not (tmp_path / "killed.safetensors").exists()
    for name in ("killed", "whole"):
        assert main(argv(name)) == 0
    for suffix in (".safetensors", ".supernet.safetensors"):
        whole, resumed = (tmp_path / f"{name}{suffix}" for name in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes()
