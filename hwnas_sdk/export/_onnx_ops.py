"""How each operator of `core.layers.OPS` is written in ONNX opset 13.

An emitter gets the tensors a layer reads, appends nodes, and leaves the result in the tensor
`out`. Everything newer than opset 13 (HardSwish, Gelu, LayerNormalization) is spelled out in the
pattern runtimes know how to fuse again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import Layer, Shape
from hwnas_sdk.export import _protobuf

OPSET: Final = 13
_AttrValue = int | float | tuple[int, ...]
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5  # field numbers of GraphProto
_DATA_TYPES: Final = {
    np.dtype("<f4"): int(onnx.TensorProto.FLOAT),
    np.dtype("<i8"): int(onnx.TensorProto.INT64),
}


class NodeSink:
    """Collects the nodes and constant tensors of one graph in serialised form.

    Args:
        shapes: layer name -> shape without batch.

    Attributes:
        nodes: the graph's node fields, ready to be joined.
        tensors: the graph's initializer fields, likewise.
    """

    def __init__(self, shapes: dict[str, Shape]) -> None:
        self.shapes = shapes
        self.nodes: list[bytes] = []
        self.tensors: list[bytes | memoryview] = []
        self._constants: set[str] = set()

    def node(
        self, op_type: str, inputs: Sequence[str], out: str, /, **attributes: _AttrValue
    ) -> str:
        """Append one node named like its output, and return that output."""
        data = _protobuf.node(inputs, out, _operation(op_type, tuple(attributes.items())))
        self.nodes += (_protobuf.head(_GRAPH_NODE, len(data)), data)
        return out

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant tensor (little-endian float32 or int64) and return its name."""
        view = array.data
        if not view.c_contiguous:
            view = np.ascontiguousarray(array).data
        raw = view.cast("B")  # copied once, when everything is joined
        size = len(raw)
        front = _protobuf.tensor_head(name, array.shape, _DATA_TYPES[array.dtype], size)
        self.tensors += (_protobuf.head(_GRAPH_INITIALIZER, len(front) + size), front, raw)
        return name

    def scalar(self, value: float) -> str:
        """Return the name of a float scalar shared by all nodes that need it."""
        return self._constant(f"const:{value!r}", np.array(value, dtype="<f4"))

    def axes(self, axes: tuple[int, ...]) -> str:
        """Return the name of a shared int64 list of axes."""
        return self._constant(f"const:axes{axes}", np.array(axes, dtype="<i8"))

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self.tensor(name, array)
        return name


@lru_cache(maxsize=1024)
def _operation(op_type: str, attributes: tuple[tuple[str, _AttrValue], ...]) -> bytes:
    """Serialised op_type and attributes of a node."""
    node = onnx.NodeProto(op_type=op_type)
    for key, value in attributes:
        if isinstance(value, tuple):
            node.attribute.add(name=key, ints=value, type=onnx.AttributeProto.INTS)
        elif isinstance(value, float):
            node.attribute.add(name=key, f=value, type=onnx.AttributeProto.FLOAT)
        else:
            node.attribute.add(name=key, i=value, type=onnx.AttributeProto.INT)
    data: bytes = node.SerializeToString(deterministic=True)
    return data


Emitter = Callable[[NodeSink, Layer, list[str], str], None]
EMITTERS: Final[dict[str, Emitter]] = {}


def _emits(op: str) -> Callable[[Emitter], Emitter]:
    def register(emitter: Emitter) -> Emitter:
        EMITTERS[op] = emitter
        return emitter

    return register


def _plain(op_type: str, **attributes: _AttrValue) -> Emitter:
    """Emitter of an operator that ONNX has under another name."""

    def emit(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
        del layer
        sink.node(op_type, xs, out, **attributes)

    return emit


EMITTERS["relu"] = _plain("Relu")
EMITTERS["sigmoid"] = _plain("Sigmoid")
EMITTERS["tanh"] = _plain("Tanh")
EMITTERS["hsigmoid"] = _plain("HardSigmoid", alpha=1 / 6, beta=0.5)
EMITTERS["identity"] = _plain("Identity")
EMITTERS["softmax"] = _plain("Softmax", axis=-1)
EMITTERS["concat"] = _plain("Concat", axis=1)
EMITTERS["flatten"] = _plain("Flatten", axis=1)


@_emits("relu6")
def _relu6(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    del layer
    sink.node("Clip", [xs[0], sink.scalar(0.0), sink.scalar(6.0)], out)


@_emits("hswish")
def _hswish(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Emit x * hsigmoid(x)."""
    del layer
    gate = sink.node("HardSigmoid", xs, f"{out}/gate", alpha=1 / 6, beta=0.5)
    sink.node("Mul", [xs[0], gate], out)


@_emits("gelu")
def _gelu(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Emit x (1 + erf(x / sqrt 2)) / 2, the exact form."""
    del layer
    scaled = sink.node("Div", [xs[0], sink.scalar(math.sqrt(2.0))], f"{out}/scaled")
    erf = sink.node("Erf", [scaled], f"{out}/erf")
    shifted = sink.node("Add", [erf, sink.scalar(1.0)], f"{out}/shifted")
    product = sink.node("Mul", [xs[0], shifted], f"{out}/product")
    sink.node("Mul", [product, sink.scalar(0.5)], out)


@_emits("zero")
def _zero(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Emit x * 0, which runtimes execute; a constant would be folded away with its input."""
    del layer
    sink.node("Mul", [xs[0], sink.scalar(0.0)], out)


@_emits("conv")
def _conv(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    pad_h, pad_w = layer.pair_attr("padding", 0)
    params = [f"{layer.name}.{key}" for key in ("weight", "bias") if key in layer.params]
    sink.node(
        "Conv",
        [*xs, *params],
        out,
        dilations=layer.pair_attr("dilation", 1),
        group=layer.int_attr("groups", 1),
        kernel_shape=layer.params["weight"][2:],
        pads=(pad_h, pad_w, pad_h, pad_w),
        strides=layer.pair_attr("stride", 1),
    )


@_emits("batch_norm")
def _batch_norm(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    params = [f"{layer.name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
    sink.node("BatchNormalization", [*xs, *params], out, epsilon=layer.float_attr("eps", 1e-5))


def _pool(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    kernel = layer.pair_attr("kernel", 1)
    pad_h, pad_w = layer.pair_attr("padding", 0)
    extra: dict[str, _AttrValue] = {}
    if layer.op == "avg_pool":
        extra["count_include_pad"] = layer.int_attr("count_include_pad", 0)
    sink.node(
        "AveragePool" if layer.op == "avg_pool" else "MaxPool",
        xs,
        out,
        **extra,
        kernel_shape=kernel,
        pads=(pad_h, pad_w, pad_h, pad_w),
        strides=layer.pair_attr("stride", kernel),
    )


EMITTERS["avg_pool"] = _pool
EMITTERS["max_pool"] = _pool


@_emits("global_avg_pool")
def _global_avg_pool(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    del layer
    pooled = sink.node("GlobalAveragePool", xs, f"{out}/pooled")
    sink.node("Flatten", [pooled], out, axis=1)


@_emits("add")
def _add(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Emit a chain of binary additions, left to right: what runtimes fuse into convolutions."""
    if len(xs) < 2 or len({sink.shapes[name] for name in layer.inputs}) != 1:
        raise ExportError(f"layer {layer.name!r}: add takes two or more inputs of one shape")
    total = xs[0]
    for i, term in enumerate(xs[1:], start=1):
        total = sink.node("Add", [total, term], out if i == len(xs) - 1 else f"{out}/{i}")


@_emits("mul")
def _mul(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    if len(xs) != 2:
        raise ExportError(f"layer {layer.name!r}: mul takes two inputs, got {len(xs)}")
    left, right = (sink.shapes[name] for name in layer.inputs)
    factors = list(xs)
    if left != right:
        if {len(left), len(right)} != {1, 3} or left[0] != right[0]:
            raise ExportError(f"layer {layer.name!r}: mul cannot broadcast {left} over {right}")
        narrow = 0 if len(left) == 1 else 1  # (N, C) -> (N, C, 1, 1)
        factors[narrow] = sink.node("Unsqueeze", [xs[narrow], sink.axes((2, 3))], f"{out}/factor")
    sink.node("Mul", factors, out)


@_emits("linear")
def _linear(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Vectors become a Gemm; sequences (..., features) a MatMul with the transposed weight."""
    weight, bias = f"{layer.name}.weight", f"{layer.name}.bias"
    biases = [bias] if "bias" in layer.params else []
    if len(layer.shape) == 1:
        sink.node("Gemm", [*xs, weight, *biases], out, transB=1)
        return
    product = sink.node("MatMul", [*xs, weight], f"{out}/product" if biases else out)
    if biases:
        sink.node("Add", [product, bias], out)


@_emits("matmul")
def _matmul(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    ranks = [len(sink.shapes[name]) for name in layer.inputs]
    if len(xs) != 2 or ranks[0] != ranks[1] or ranks[0] < 2:
        raise ExportError(f"layer {layer.name!r}: matmul takes two matrices of one rank")
    sink.node("MatMul", xs, out)


@_emits("layer_norm")
def _layer_norm(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    """Emit (x - mean) / sqrt(var + eps) * weight + bias over the weight's dimensions."""
    axes = tuple(range(-len(layer.params["weight"]), 0))
    mean = sink.node("ReduceMean", xs, f"{out}/mean", axes=axes, keepdims=1)
    centred = sink.node("Sub", [xs[0], mean], f"{out}/centred")
    square = sink.node("Pow", [centred, sink.scalar(2.0)], f"{out}/square")
    variance = sink.node("ReduceMean", [square], f"{out}/variance", axes=axes, keepdims=1)
    eps = sink.scalar(layer.float_attr("eps", 1e-5))
    deviation = sink.node("Sqrt", [sink.node("Add", [variance, eps], f"{out}/eps")], f"{out}/sd")
    normal = sink.node("Div", [centred, deviation], f"{out}/normal")
    scaled = sink.node("Mul", [normal, f"{layer.name}.weight"], f"{out}/scaled")
    sink.node("Add", [scaled, f"{layer.name}.bias"], out)


@_emits("embedding")
def _embedding(sink: NodeSink, layer: Layer, xs: list[str], out: str) -> None:
    sink.node("Gather", [f"{layer.name}.weight", xs[0]], out, axis=0)
