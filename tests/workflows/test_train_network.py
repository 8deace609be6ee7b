"""A candidate from scratch: files, board, and what a killed command leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from image_folders import striped
from safetensors.numpy import load_file

from hwnas_sdk.core.errors import ConfigError, DeviceError, MeasurementError, SpaceError
from hwnas_sdk.core.events import Event
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.networks.training.fit import TrainPlan
from hwnas_sdk.networks.training.images import ImageSplits
from hwnas_sdk.predictors.card import load_card
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows import board_accuracy as boards
from hwnas_sdk.workflows import train_network as work
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.training_files import checkpoint_of

SPACE = get_space("nasbench201")
CELL = SPACE.architecture((1, 0, 1, 1, 4, 2))
PLAN = TrainPlan(epochs=2, batch_size=16, learning_rate=0.05, padding=0, flip=False)


@pytest.fixture(autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(
    tmp_path: Path, images: ImageSplits, *, plan: TrainPlan = PLAN, on_event=lambda event: None
) -> work.TrainedNetwork:
    return work.train_network(
        SPACE, CELL, images, plan, tmp_path / "net.safetensors",
        cache=ArtifactCache(tmp_path / "cache"), on_event=on_event,
    )  # fmt: skip


def test_files_agree_with_each_other(tmp_path: Path) -> None:
    images = striped(48)
    made = trained(tmp_path, images)
    weights = load_file(tmp_path / "net.safetensors")
    graph = SPACE.layers(CELL, dataset="digits", folded=True)
    assert {name: array.shape for name, array in weights.items()} == dict(graph.parameter_shapes)
    card = load_card(tmp_path / "net.safetensors")
    assert card.kind == "trained_network"
    assert card.metrics == made.metrics
    assert made.metrics["error_pct"] == pytest.approx(100 - made.metrics["test_accuracy_pct"])
    assert card.settings["arch"] == SPACE.encode(CELL)
    assert card.data["n_train"] == len(images.train)
    assert made.onnx.read_bytes() == Path(made.artifact.path).read_bytes()
    # The card says how to feed the network: done by hand, it classifies as the metrics say.
    told = card.data["normalisation"]
    mean, std = (np.array(told[key], np.float32)[:, None, None] for key in ("mean", "std"))
    session = onnxruntime.InferenceSession(made.onnx, providers=["CPUExecutionProvider"])
    right = [
        session.run(None, {"input": (pixels[None] - mean) / std})[0].argmax() == label
        for pixels, label in zip(images.test.pixels, images.test.labels, strict=True)
    ]
    assert 100 * np.mean(right) == pytest.approx(made.metrics["test_accuracy_pct"])


def test_killed_while_training_or_later_nothing_is_lost(tmp_path: Path) -> None:
    images = striped(32)
    whole = trained(tmp_path / "whole", images)

    def stop(event: Event) -> None:
        if event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, images, on_event=stop)
    assert checkpoint_of(tmp_path / "net.safetensors").exists()
    assert not (tmp_path / "net.safetensors").exists()
    made = trained(tmp_path, images)
    assert made.output.read_bytes() == whole.output.read_bytes()
    assert made.metrics == whole.metrics
    # Until the caller removes the checkpoint nothing is trained again: the board may have failed.
    events: list[Event] = []
    assert trained(tmp_path, images, on_event=events.append).metrics == whole.metrics
    assert events == []


def test_what_cannot_work_is_refused_before_it_starts(tmp_path: Path) -> None:
    cache, images = ArtifactCache(tmp_path), striped(32)

    def attempt(output: str = "n.safetensors", **changes: object) -> None:
        arguments = {"architecture": CELL, "torch_device": "cpu", **changes}
        work.train_network(
            SPACE, images=images, plan=PLAN, output=tmp_path / output, cache=cache, **arguments
        )

    for suffix in (".onnx", ".json", ".checkpoint"):
        with pytest.raises(ConfigError, match="written beside it") as caught:
            attempt("n" + suffix)
        assert caught.value.code == "bad_output"
    with pytest.raises(SpaceError, match="dead cell"):
        attempt(architecture=SPACE.architecture((0,) * 6))
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(ConfigError, match="torch cannot work on") as caught:
            attempt(torch_device=name)
        assert "\n" not in str(caught.value)


# --- on a board -------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_board_classifies_like_the_host(tmp_path: Path) -> None:
    made = trained(tmp_path, striped(210))  # 35 to test by
    with Lab.open() as lab:
        answer = work.check_on_board(made, lab, lab.device("local"), n_images=None)
        stored = lab.store.measurements(run_id=answer["run"])
    assert answer["n_images"] == 35
    assert answer["agreement_pct"] == 100
    assert answer["accuracy_pct"] == answer["host_accuracy_pct"]
    assert answer["accuracy_pct"] == pytest.approx(made.metrics["test_accuracy_pct"])
    assert answer["outputs_match"] is True
    assert answer["latency_ms"] > 0
    # More than one where the machine was not quiet.
    assert {m.artifact_sha256 for m in stored} == {made.artifact.sha256}


def fake_answer(tmp_path: Path, change=None, *, uri: str = "fake://?mode=ok", n: int = 130):
    """Board accuracy on a board that says what it is told to expect."""
    graph = SPACE.layers(CELL, dataset="digits", folded=True)
    from hwnas_sdk.export.weights import random_weights

    images = np.zeros((n, 1, 8, 8), np.float32)
    labels, host = np.zeros(n, np.int64), np.arange(n) % 2
    with Lab.open() as lab:
        session = lab.device(uri)
        if change is not None:
            real = session.measure
            session.measure = lambda job: change(real(job))  # type: ignore[method-assign]
        return boards.board_accuracy(
            session, graph, random_weights(graph, seed=0), images, labels, host,
            arch="a", cache=lab.cache,
        )  # fmt: skip


def test_files_of_64_images_and_what_is_left(tmp_path: Path) -> None:
    sizes = []

    def note(result):
        sizes.extend(len(item.facts["output"]) for item in result.items)
        return result

    found = fake_answer(tmp_path, note)
    assert sizes == [64, 64, 2]
    assert (found.n_images, found.agreement_pct, found.accuracy_pct) == (130, 100, 50)


def test_a_board_that_errs_is_seen(tmp_path: Path) -> None:
    def wrong(result):
        items = [replace(i, facts={"output": [1.0] * len(i.facts["output"])}) for i in result.items]
        return replace(result, items=tuple(items))

    found = fake_answer(tmp_path, wrong)
    assert (found.accuracy_pct, found.host_accuracy_pct, found.agreement_pct) == (0, 50, 50)


@pytest.mark.parametrize("facts", [{}, {"output": [0.0]}, {"output": [None] * 64}])
def test_no_answer_is_an_error(tmp_path: Path, facts: dict) -> None:
    def mute(result):
        return replace(result, items=tuple(replace(i, facts=facts) for i in result.items))

    with pytest.raises(MeasurementError, match="gave no classes for 64 images") as caught:
        fake_answer(tmp_path, mute)
    assert caught.value.code == "no_outputs"


def test_a_failure_on_the_board_is_quoted(tmp_path: Path) -> None:
    def fail(result):
        broken = (replace(i, error_message="out of memory", facts={}) for i in result.items)
        return replace(result, items=tuple(broken))

    with pytest.raises((MeasurementError, DeviceError), match="out of memory"):
        fake_answer(tmp_path, fail)


def test_a_device_that_runs_nothing_has_no_accuracy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs no networks \(its numbers are simulated\)"):
        fake_answer(tmp_path, uri="sim://eyeriss")


def test_the_card_is_strict_json(tmp_path: Path) -> None:
    trained(tmp_path, striped(32), plan=replace(PLAN, epochs=1))
    json.loads((tmp_path / "net.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
