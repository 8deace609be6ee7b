"""Architecture in, artifact out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.types import Architecture, Artifact
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.onnx import (
    EMITTER_VERSION,
    INPUT_NAME,
    IR_VERSION,
    OPSET,
    check_model,
    onnx_bytes,
)
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.spaces import SearchSpace

PRODUCER: Final = f"hwnas-sdk/{EMITTER_VERSION} opset {OPSET} ir {IR_VERSION}"
_GRAPH_IDS_MAX: Final = 65_536
# (space, arch_id, dataset, folded) -> LayerGraph.id: building the graph only to look up its memo
# would cost more than everything else in a repeated export.
_graph_ids: dict[tuple[SearchSpace, str, str | None, bool], str] = {}


@dataclass(frozen=True, slots=True)
class ColdExport:
    """One timed export that found nothing in the cache.

    Attributes:
        sha256: of the file it wrote.
        size_bytes: length of that file.
        duration_s: the whole chain.
        stages_s: where it went: graph, weights, emit, check, store (hash and durable write).
    """

    sha256: str
    size_bytes: int
    duration_s: float
    stages_s: Mapping[str, float]


def export_architecture(
    space: SearchSpace,
    architecture: Architecture,
    *,
    cache: ArtifactCache,
    folded: bool,
    dataset: str | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
    seed: int = 0,
    batch: int = 1,
) -> Artifact:
    """Write an architecture as a checked ONNX file into `cache`; a repeat costs under 1 ms.

    Args:
        space: the space `architecture` belongs to.
        architecture: what to export.
        cache: where the file goes.
        folded: the canonical live graph, or every operator (see `LayerGraph`).
        dataset: sets input shape and classes; None is the space's default.
        weights: trained weights by parameter name; None makes random ones from `seed`. A folded
            graph takes those of the unfolded one; outputs then agree where the batch norm of each
            convolution without input maps 0 to 0 (random weights do).
        seed: of the random weights.
        batch: first dimension of the input.

    Raises: SpaceError for an architecture that is not of `space` or (folded) dead; ExportError for
        weights that do not fit; DataError when the cache cannot be written.
    """
    note = f"random {seed}" if weights is None else "given"
    slot = (space, architecture.id, dataset, folded)
    graph: LayerGraph | None = None
    if slot not in _graph_ids:
        graph = space.layers(architecture, dataset=dataset, folded=folded)
        if len(_graph_ids) >= _GRAPH_IDS_MAX:
            _graph_ids.clear()
        _graph_ids[slot] = graph.id
    # Two architectures may share a folded graph; the file still says which one it was made for.
    key = content_id([_graph_ids[slot], architecture.id, note, batch, PRODUCER], length=32)
    if weights is None:
        found = cache.recall(key)
        if found is not None:
            return found
    if graph is None:
        graph = space.layers(architecture, dataset=dataset, folded=folded)
    if weights is None:
        artifact = _store(cache, graph, random_weights(graph, seed=seed), note, batch)
        cache.remember(key, artifact.sha256)
        return artifact
    return _store(cache, graph, weights, note, batch)


def export_graph(
    graph: LayerGraph, *, cache: ArtifactCache, seed: int = 0, batch: int = 1
) -> Artifact:
    """Write any layer graph with random weights as a checked ONNX file into `cache`.

    Raises: ExportError for a layer that cannot be written; DataError when the cache cannot.
    """
    note = f"random {seed}"
    key = content_id([graph.id, graph.arch_id, note, batch, PRODUCER], length=32)
    found = cache.recall(key)
    if found is not None:
        return found
    artifact = _store(cache, graph, random_weights(graph, seed=seed), note, batch)
    cache.remember(key, artifact.sha256)
    return artifact


def export_cold(
    space: SearchSpace,
    architecture: Architecture,
    *,
    cache: ArtifactCache,
    folded: bool,
    dataset: str | None = None,
    seed: int = 0,
    batch: int = 1,
) -> ColdExport:
    """Time one export that can reuse nothing: graph, weights, emit, check, hash, durable write.

    The file goes to a scratch folder on the file system of `cache` and is removed again.
    """
    with cache.scratch() as scratch:
        marks = [time.perf_counter()]
        graph = space.layers(architecture, dataset=dataset, folded=folded)
        marks.append(time.perf_counter())
        weights = random_weights(graph, seed=seed)
        marks.append(time.perf_counter())
        data = onnx_bytes(graph, weights, batch=batch, weights_note=f"random {seed}")
        marks.append(time.perf_counter())
        check_model(data)
        marks.append(time.perf_counter())
        artifact = _put(scratch, graph, data, f"random {seed}", batch)
        marks.append(time.perf_counter())
    names = ("graph", "weights", "emit", "check", "store")
    stages_s = {name: marks[i + 1] - marks[i] for i, name in enumerate(names)}
    return ColdExport(artifact.sha256, len(data), marks[-1] - marks[0], stages_s)


def _store(
    cache: ArtifactCache,
    graph: LayerGraph,
    weights: Mapping[str, NDArray[Any]],
    note: str,
    batch: int,
) -> Artifact:
    data = onnx_bytes(graph, weights, batch=batch, weights_note=note)
    check_model(data)
    return _put(cache, graph, data, note, batch)


def _put(cache: ArtifactCache, graph: LayerGraph, data: bytes, note: str, batch: int) -> Artifact:
    return cache.put(
        data,
        format="onnx",
        arch_id=graph.arch_id,
        folded=graph.folded,
        producer=f"{PRODUCER}, weights {note}",
        input_shapes={INPUT_NAME: (batch, *graph.input.shape)},
    )
