"""`hwnas train network`: one candidate from scratch, as weights, card and ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

import hwnas_sdk
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.files import check_writable, write_bytes_atomic
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.core.types import Architecture, Artifact, Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture
from hwnas_sdk.networks.training.fit import (
    TrainPlan,
    TrainResult,
    accuracy_pct,
    moved,
    new_module,
    predictions,
    train,
)
from hwnas_sdk.networks.training.images import ImageSplits
from hwnas_sdk.predictors.card import Card, save_model
from hwnas_sdk.spaces import SearchSpace
from hwnas_sdk.workflows.board_accuracy import board_accuracy
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.measure import Target
from hwnas_sdk.workflows.training_files import checkpoint_of

KIND: Final = "trained_network"
SCHEMA: Final = 1
_TAKEN: Final = {".onnx", ".json", ".checkpoint"}


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A candidate after training.

    Attributes:
        space, architecture: which one.
        module: in eval mode.
        weights: by parameter name, of the folded graph.
        images: it was trained and judged on.
        result: how the training went.
        metrics: ``valid_accuracy_pct``, ``test_accuracy_pct``, ``error_pct`` (of the test).
        artifact: its ONNX file in the cache.
        output: the weights; card and ONNX file lie beside it.
    """

    space: SearchSpace
    architecture: Architecture
    module: nn.Module
    weights: Mapping[str, NDArray[Any]]
    images: ImageSplits
    result: TrainResult
    metrics: Mapping[str, float]
    artifact: Artifact
    output: Path

    @property
    def onnx(self) -> Path:
        """The ONNX file beside the weights."""
        return self.output.with_suffix(".onnx")


def check_output(output: Path) -> None:
    """Raise ConfigError or DataError when weights and what lies beside them cannot go there."""
    if output.suffix in _TAKEN:
        raise ConfigError(
            f"{output}: the weights are a .safetensors file; {output.suffix} is written beside it",
            code="bad_output",
            hint=f"-o {output.with_suffix('.safetensors')}",
        )
    check_writable(output)


def train_network(
    space: SearchSpace,
    architecture: Architecture,
    images: ImageSplits,
    plan: TrainPlan,
    output: Path,
    *,
    cache: ArtifactCache,
    torch_device: str = "cpu",
    on_event: EventSink = ignore,
) -> TrainedNetwork:
    """Train the folded network of an architecture; write weights, card and ONNX file.

    Killed, the same call continues from its last epoch and ends in the same weights.

    Args:
        space: the space of `architecture`; builds networks for the task of `images`.
        architecture: what to train.
        images: of the task.
        plan: how.
        output: the .safetensors file; .json, .onnx and .checkpoint lie beside it.
        cache: keeps the ONNX file, ready to be measured.
        torch_device: where torch works.
        on_event: told after each epoch.

    Raises: SpaceError for a dead cell; ModelError when the training diverges or the checkpoint is
        of another one; ConfigError for an unknown torch device.
    """
    check_output(output)
    task = images.task
    graph = space.layers(architecture, dataset=task.name, folded=True)
    module = moved(new_module(graph, seed=plan.seed), torch_device)
    result = train(
        module,
        images,
        plan,
        checkpoint=checkpoint_of(output),
        identity=graph.id,
        on_event=on_event,
    )
    test_pct = accuracy_pct(module, images, images.test)
    metrics = {
        "valid_accuracy_pct": result.valid_accuracy_pct[-1],
        "test_accuracy_pct": test_pct,
        "error_pct": 100.0 - test_pct,
        "train_loss": result.losses[-1],
    }
    weights = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
    artifact = export_architecture(
        space, architecture, cache=cache, folded=True, dataset=task.name, weights=weights
    )
    arch = space.encode(architecture)
    card = Card(
        name=output.stem,
        kind=KIND,
        space=space.name,
        schema=SCHEMA,
        data=described(images),
        metrics=metrics,
        settings={"arch": arch, "arch_id": architecture.id, "folded": True, **asdict(plan),
                  "onnx_sha256": artifact.sha256},
    )  # fmt: skip
    save_model(output, weights, card)
    trained = TrainedNetwork(
        space, architecture, module, weights, images, result, metrics, artifact, output
    )
    write_bytes_atomic(trained.onnx, Path(artifact.path).read_bytes())
    return trained


def check_on_board(
    trained: TrainedNetwork,
    lab: Lab,
    session: DeviceSession,
    *,
    settings: str = "quick",
    threads: int = 1,
    n_images: int | None = None,
) -> dict[str, Any]:
    """Measure a trained network on a board: latency, outputs against this host's, accuracy there.

    Args:
        trained: the network.
        lab: its store keeps the latency.
        session: the board.
        settings: name of the measurement settings.
        threads: of the runtime.
        n_images: how many test images the board classifies, None for all of them.

    Returns: ``name``, the measurement's figures and flags, ``outputs_match`` (None: not compared),
        and the fields of `BoardAccuracy`.
    Raises: as `board_accuracy`.
    """
    measurement = _measured(trained, lab, session, settings, threads)
    part = trained.images.test.take(slice(0, n_images))
    host = np.concatenate(
        [predictions(trained.module, trained.images, batch) for batch in part.batches(512)]
    )
    graph = trained.space.layers(
        trained.architecture, dataset=trained.images.task.name, folded=True
    )
    accuracy = board_accuracy(
        session,
        graph,
        trained.weights,
        trained.images.normalise(part.pixels),
        part.labels,
        host,
        arch=trained.space.encode(trained.architecture),
        cache=lab.cache,
        threads=threads,
        on_event=lab.on_event,
    )
    flags = measurement.flags
    unchecked = "output_unchecked" in flags or measurement.latency_ms is None
    return {
        "name": session.spec.name,
        "run": measurement.run_id,
        "latency_ms": measurement.latency_ms,
        "ci95_ms": measurement.ci95_ms,
        "peak_memory_mib": measurement.peak_memory_mib,
        "status": measurement.status,
        "flags": flags,
        "origin": measurement.origin,
        "outputs_match": None if unchecked else "output_mismatch" not in flags,
        **asdict(accuracy),
    }


def _measured(
    trained: TrainedNetwork, lab: Lab, session: DeviceSession, settings: str, threads: int
) -> Measurement:
    """Latency of the trained network; its outputs are compared on the way."""
    arch, artifact = trained.architecture, trained.artifact
    target = Target(
        item=f"{arch.id}/folded/{artifact.sha256[:12]}",
        arch_id=arch.id,
        arch=trained.space.encode(arch),
        make_artifact=lambda: artifact,
        architecture=arch,
        folded=True,
    )
    chosen = settings_preset(settings, threads=threads)
    plan = {
        "sdk_version": hwnas_sdk.__version__,
        "device_id": session.spec.id,
        "items": [target.item],
        "targets": [target.arch],
        "folded": True,
        "fixed_dims": {},
        "settings": chosen.to_json(),
        "seed": 0,
    }
    run = lab.store.start_run("measure", plan)
    results = lab.measurer(session, run, chosen).measure(
        [target], task=f"measure {session.spec.name}"
    )
    lab.store.finish_run(run.id)
    return results[target.item]


def described(images: ImageSplits) -> dict[str, Any]:
    """What the card says of the images, with all that is needed to feed the network."""
    task = images.task
    brought = f"{task.name}, the user's own files"
    return {
        "task": task.name,
        "source": brought if task.needs_folder else
                  "scikit-learn's load_digits: UCI optical recognition of handwritten digits, "
                  "CC BY 4.0",
        "fingerprint": images.fingerprint(),
        "n_train": len(images.train),
        "n_valid": len(images.valid),
        "n_test": len(images.test),
        "normalisation": {
            "formula": "(pixel - mean) / std, by channel",
            "pixel_max": task.pixel_max,
            "mean": [float(value) for value in images.mean],
            "std": [float(value) for value in images.std],
        },
    }  # fmt: skip
