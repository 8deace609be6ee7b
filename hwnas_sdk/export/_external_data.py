"""Weights that an ONNX file keeps in files beside it are taken in: an artifact is one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from hwnas_sdk.core.errors import ExportError


def embed_external_data(model: onnx.ModelProto, path: Path, max_bytes: int) -> bool:
    """Replace references to other files by their content.

    Args:
        model: changed in place.
        path: where the model was read from; its folder holds the other files.
        max_bytes: what the model may have in the end.

    Returns: whether there was anything to do.
    Raises: ExportError naming the file that is missing, too short or outside the folder.
    """
    outside = [t for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    parts = [_locate(path, tensor) for tensor in outside]
    n_bytes = sum(length for _, _, length in parts) + model.ByteSize()
    if outside and n_bytes > max_bytes:
        raise ExportError(
            f"{path} has {n_bytes / 2**30:.1f} GiB with its external data; "
            "a deployable model has less than 2 GiB",
            code="model_too_big",
            hint="quantise it, or measure a smaller part of it",
        )
    for tensor, (source, offset, length) in zip(outside, parts, strict=True):
        with source.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    return bool(outside)


def _locate(path: Path, tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    """File, offset and length of a tensor's data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    source = (folder / location).resolve()
    if not location or not source.is_relative_to(folder):
        raise ExportError(
            f"{path}: the data of {tensor.name!r} should lie in {location!r}, outside its folder",
            code="external_data",
        )
    if not source.is_file():
        raise ExportError(
            f"{path}: its weights file {location!r} is missing",
            code="external_data",
            hint=f"copy {location} into {path.parent}/, or save the model as one file",
        )
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", source.stat().st_size - offset))
    except ValueError as exc:
        raise ExportError(
            f"{path}: the reference of {tensor.name!r} to {location!r} is damaged",
            code="external_data",
        ) from exc
    if offset < 0 or length < 0 or offset + length > source.stat().st_size:
        raise ExportError(
            f"{path}: its weights file {location!r} breaks off before {tensor.name!r} ends",
            code="external_data",
            hint="copy or export it again",
        )
    return source, offset, length


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graph_tensors(graph)
