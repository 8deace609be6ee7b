"""ONNX straight from a `LayerGraph`: opset 13 and IR 7, which runtimes since 2020 load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.export import _protobuf
from hwnas_sdk.export._onnx_ops import EMITTERS, OPSET, NodeSink

__all__ = ["EMITTER_VERSION", "IR_VERSION", "OPSET", "check_model", "onnx_bytes", "takes_indices"]

IR_VERSION: Final = 7
# Raised whenever the same graph and weights would give other bytes. The package's version is left
# out on purpose: a release that changes nothing here must not give every network a new hash.
EMITTER_VERSION: Final = "1"
INPUT_NAME: Final = "input"
OUTPUT_NAME: Final = "output"
_FLOAT32: Final = np.dtype("<f4")
_MODEL_GRAPH: Final = 7  # field number of ModelProto.graph


def onnx_bytes(
    graph: LayerGraph,
    weights: Mapping[str, NDArray[Any]],
    *,
    batch: int = 1,
    weights_note: str = "given",
) -> bytes:
    """Serialise `graph` with `weights` as an ONNX model; equal input, equal bytes.

    Batch norm stays a layer of its own and every operator is written out, so what is measured is
    what the runtime makes of the network. Input and output are called ``input`` and ``output``;
    initialisers carry the graph's parameter names.

    Args:
        graph: what to write.
        weights: ``{layer}.{param}`` -> array in the shape of `LayerGraph.parameter_shapes`; more
            keys than the graph needs are fine (a folded graph takes the unfolded one's weights).
        batch: first dimension of input and output.
        weights_note: where the weights come from, kept in the file's metadata.

    Raises: ExportError for a missing or misshapen weight, or a layer that cannot be written.
    """
    if batch < 1:
        raise ExportError(f"a batch holds at least one input, got {batch}", code="bad_batch")
    sink = NodeSink({layer.name: layer.shape for layer in graph})
    _add_weights(sink, graph, weights)
    _add_layers(sink, graph)
    head = onnx.ModelProto(
        ir_version=IR_VERSION, producer_name="hwnas-sdk", producer_version=EMITTER_VERSION
    )
    tail = onnx.ModelProto(opset_import=[onnx.OperatorSetIdProto(version=OPSET)])
    for key, text in (
        ("arch_id", graph.arch_id),
        ("folded", str(graph.folded).lower()),
        ("graph_id", graph.id),
        ("weights", weights_note),
    ):
        tail.metadata_props.add(key=key, value=text)
    body = [
        *sink.nodes,
        onnx.GraphProto(name=graph.arch_id or "network").SerializeToString(),
        *sink.tensors,
        _ends(graph, batch).SerializeToString(),
    ]
    return b"".join(
        [
            head.SerializeToString(),
            _protobuf.head(_MODEL_GRAPH, sum(map(len, body))),
            *body,
            tail.SerializeToString(),
        ]
    )


def check_model(data: bytes) -> None:
    """Let onnx.checker look at a serialised model.

    Raises: ExportError with the checker's first complaint.
    """
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as exc:
        reason = " ".join(str(exc).split())
        raise ExportError(f"not a valid ONNX model: {reason[:300]}", code="bad_onnx") from exc


def takes_indices(graph: LayerGraph) -> bool:
    """Whether the input holds integer indices (it feeds embeddings) instead of numbers.

    Raises: ExportError when layers disagree.
    """
    readers = {layer.op for layer in graph if graph.input.name in layer.inputs}
    if "embedding" in readers and len(readers) > 1:
        others = ", ".join(sorted(readers - {"embedding"}))
        raise ExportError(f"the input feeds an embedding and also {others}: indices or numbers?")
    return "embedding" in readers


def _add_weights(sink: NodeSink, graph: LayerGraph, weights: Mapping[str, NDArray[Any]]) -> None:
    for layer in graph:
        for key, shape in layer.params.items():
            name = f"{layer.name}.{key}"
            array = weights.get(name)
            if array is None:
                raise ExportError(f"{graph.arch_id}: no weight for {name!r}", code="bad_weights")
            if array.shape != shape:
                raise ExportError(
                    f"{graph.arch_id}: weight {name!r} has shape {array.shape}, not {shape}",
                    code="bad_weights",
                )
            if layer.op == "linear" and key == "weight" and len(layer.shape) > 1:
                array = array.T  # over sequences it is a MatMul, which wants (in, out)
            sink.tensor(name, array if array.dtype == _FLOAT32 else array.astype(_FLOAT32))


def _add_layers(sink: NodeSink, graph: LayerGraph) -> None:
    tensor_of = {graph.input.name: INPUT_NAME}
    last = graph.output
    for layer in graph.layers[1:]:
        out = layer.name
        if layer is last:
            out = OUTPUT_NAME
        elif out in {INPUT_NAME, OUTPUT_NAME}:
            raise ExportError(f"layer {layer.name!r}: this name is kept for the network's ends")
        emitter = EMITTERS.get(layer.op)
        if emitter is None:
            raise ExportError(f"layer {layer.name!r}: {layer.op!r} cannot stand inside a network")
        emitter(sink, layer, [tensor_of[name] for name in layer.inputs], out)
        tensor_of[layer.name] = out
    if len(graph) == 1:
        sink.node("Identity", [INPUT_NAME], OUTPUT_NAME)


def _ends(graph: LayerGraph, batch: int) -> onnx.GraphProto:
    """GraphProto that holds nothing but the input and the output."""
    indices = takes_indices(graph)
    proto = onnx.GraphProto()
    for values, name, layer in (
        (proto.input, INPUT_NAME, graph.input),
        (proto.output, OUTPUT_NAME, graph.output),
    ):
        tensor = values.add(name=name).type.tensor_type
        is_index = indices and layer is graph.input
        tensor.elem_type = onnx.TensorProto.INT64 if is_index else onnx.TensorProto.FLOAT
        for size in (batch, *layer.shape):
            tensor.shape.dim.add(dim_value=size)
    return proto
