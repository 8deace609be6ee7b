"""How many images a network classifies right on the board itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, MeasurementError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import PRODUCER
from hwnas_sdk.export.onnx import onnx_bytes
from hwnas_sdk.export.with_images import MAX_IMAGES, SPARK_NAME, onnx_with_images

ONCE: Final = MeasureSettings(
    warmup_min_s=0.0,
    warmup_min_runs=1,
    warmup_max_s=0.0,
    warmup_group_runs=1,
    block_min_s=0.0,
    block_min_runs=1,
    block_max_runs=1,
    min_blocks=1,
    max_blocks=1,
    max_timed_s=0.0,
    ci_rel_target=0.0,
    group_size=4,
)
"""The answer is wanted, not the time."""


@dataclass(frozen=True, slots=True)
class BoardAccuracy:
    """What a board made of some test images, beside what this host makes of the same ones.

    Attributes:
        accuracy_pct, host_accuracy_pct: share classified right.
        agreement_pct: share both give the same class.
        n_images: how many.
    """

    accuracy_pct: float
    host_accuracy_pct: float
    agreement_pct: float
    n_images: int


def refuse_without_network(session: DeviceSession) -> None:
    """Raise ConfigError for a device that runs no network (a table, a simulator)."""
    if not session.needs_artifacts:
        raise ConfigError(
            f"{session.spec.name} runs no networks (its numbers are {session.origin}), so it "
            "has no accuracy",
            code="no_outputs",
            hint="name a board, or leave --device out",
        )


def board_accuracy(
    session: DeviceSession,
    graph: LayerGraph,
    weights: Mapping[str, NDArray[Any]],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    host_classes: NDArray[np.int64],
    *,
    arch: str,
    cache: ArtifactCache,
    threads: int = 1,
    on_event: EventSink = ignore,
) -> BoardAccuracy:
    """Classify images on a board with ONNX Runtime, whatever else it can only be asked to time.

    Args:
        session: the board.
        graph: the network.
        weights: its parameters by name.
        images: normalised, (n, C, H, W).
        labels: their classes, (n,).
        host_classes: what this host's network says, (n,).
        arch: what a person calls the network.
        cache: where the files go.
        threads: of the runtime.
        on_event: told after each job.

    Raises: ConfigError for a device that runs no network; MeasurementError when the board gives no
        answer or not one for each image; DeviceError when it is lost.
    """
    refuse_without_network(session)
    classes: list[int] = []
    settings = replace(ONCE, threads=threads)
    waiting = _items(graph, weights, images, host_classes, arch=arch, cache=cache)
    while items := tuple(islice(waiting, settings.group_size)):
        job = MeasureJob(uuid.uuid4().hex, items, settings, None, 0)
        result = session.measure(job)
        for item, answer in zip(items, result.items, strict=True):
            assert item.expected is not None
            classes += _classes(session, answer.facts, len(item.expected), answer.error_message)
        session.forget(job.id)
        on_event(Event(f"classify on {session.spec.name}", len(classes), len(images)))
    found = np.array(classes)
    return BoardAccuracy(
        accuracy_pct=_share(found == labels),
        host_accuracy_pct=_share(host_classes == labels),
        agreement_pct=_share(found == host_classes),
        n_images=len(images),
    )


def _items(
    graph: LayerGraph,
    weights: Mapping[str, NDArray[Any]],
    images: NDArray[np.float32],
    host_classes: NDArray[np.int64],
    *,
    arch: str,
    cache: ArtifactCache,
) -> Iterator[JobItem]:
    """One item for each `MAX_IMAGES` images, made when it is needed."""
    network, batch = b"", 0
    for start in range(0, len(images), MAX_IMAGES):
        shown = images[start : start + MAX_IMAGES]
        if len(shown) != batch:
            network, batch = onnx_bytes(graph, weights, batch=len(shown)), len(shown)
        artifact = cache.put(
            onnx_with_images(network, shown),
            format="onnx",
            arch_id=graph.arch_id,
            folded=graph.folded,
            producer=f"{PRODUCER}, with images",
            input_shapes={SPARK_NAME: (1,)},
        )
        expected = tuple(float(value) for value in host_classes[start : start + MAX_IMAGES])
        yield JobItem(f"images {start}", graph.arch_id, arch, artifact, expected)


def _classes(
    session: DeviceSession, facts: Mapping[str, Any], n: int, error: str | None
) -> list[int]:
    """Classes in what the board said of one file."""
    output = facts.get("output")
    if error is None and isinstance(output, list) and len(output) == n and None not in output:
        return [int(value) for value in output]
    raise MeasurementError(
        f"{session.spec.name} gave no classes for {n} images: "
        f"{error or 'it does not hand back what a network puts out'}",
        device_id=session.spec.id,
        code="no_outputs",
        hint="boards measured by a --runner only time networks",
    )


def _share(right: NDArray[np.bool_]) -> float:
    return 100.0 * float(right.mean())
