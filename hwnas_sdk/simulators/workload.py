"""What a layer asks of an accelerator: loops for its array, data to move, or nothing.

Everything is derived from the `LayerGraph`; no file is written or parsed. Every layer of a graph
gets exactly one of the three kinds, so nothing is left out silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import Layer, LayerGraph, Shape

Pooling = Literal["modelled", "dense_conv"]
"""How pooling is costed: by the elementwise model, or as a dense convolution of its window.

The second is no physics: HW-NAS-Bench's Eyeriss columns charge a 3x3 pooling exactly like a dense
3x3 convolution, and this reproduces that convention. The record names the one that was used.
"""

OPS_PER_ELEMENT = {
    "relu": 1, "relu6": 2, "hswish": 4, "hsigmoid": 3, "sigmoid": 4, "tanh": 4, "gelu": 8,
    "batch_norm": 2, "softmax": 4, "layer_norm": 6, "concat": 0, "embedding": 0,
}  # fmt: skip
"""Operations per output element of layers without a kernel; a count, not a measurement."""

FREE = {
    "input": "is there when inference starts",
    "identity": "moves no data",
    "flatten": "moves no data",
    "zero": "is a constant the compiler removes",
}
"""Operators that cost nothing on any accelerator, and why."""


@dataclass(frozen=True, slots=True)
class ArrayWork:
    """A convolution, or what can be written as one, as loop bounds.

    K output and C input channels per group, G groups, OX x OY output pixels, FX x FY kernel.
    `on_chip` when its input and output stay in the accelerator's buffers (residency.py).
    """

    K: int
    C: int
    G: int
    OX: int
    OY: int
    FX: int
    FY: int
    stride_x: int = 1
    stride_y: int = 1
    pad_x: int = 0
    pad_y: int = 0
    dilation_x: int = 1
    dilation_y: int = 1
    on_chip: bool = False

    @property
    def words_in(self) -> int:
        """Words of the input, its padding included."""
        width = (self.OX - 1) * self.stride_x + (self.FX - 1) * self.dilation_x + 1
        height = (self.OY - 1) * self.stride_y + (self.FY - 1) * self.dilation_y + 1
        return self.C * self.G * width * height

    @property
    def words_out(self) -> int:
        """Words of the output."""
        return self.K * self.G * self.OX * self.OY

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.K * self.C * self.G * self.OX * self.OY * self.FX * self.FY

    def bound(self, loop: str) -> int:
        """Size of a loop."""
        return int(getattr(self, loop))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ElementWork:
    """Data moved through the memories and simple operations on it, in words of the activations.

    `on_chip` as in `ArrayWork`.
    """

    op: str
    n_ops: int
    words_in: int
    words_out: int
    on_chip: bool = False


@dataclass(frozen=True, slots=True)
class NoWork:
    """A layer that costs nothing here, and why."""

    op: str
    reason: str


Work = ArrayWork | ElementWork | NoWork


def work_of(
    layer: Layer, inputs: Sequence[Layer], *, pooling: Pooling, fused: Collection[str]
) -> Work:
    """Work of `layer`, which reads the outputs of `inputs`.

    Raises: ExportError for an operator that cannot be simulated.
    """
    op = layer.op
    if op in FREE:
        return NoWork(op, FREE[op])
    if op in fused:
        return NoWork(op, "is applied while results are written")
    if op in ("avg_pool", "max_pool") and pooling == "dense_conv":
        return _pool_as_convolution(layer, inputs[0].shape)
    if op in _ON_THE_ARRAY:
        return _ON_THE_ARRAY[op](layer, inputs)
    return _addition(layer, inputs) if op == "add" else _elementwise(layer, inputs)


def _linear(layer: Layer, inputs: Sequence[Layer]) -> ArrayWork:
    del inputs
    n_out, n_in = layer.params["weight"]
    return ArrayWork(K=n_out, C=n_in, G=1, OX=1, OY=math.prod(layer.shape) // n_out, FX=1, FY=1)


def _matmul(layer: Layer, inputs: Sequence[Layer]) -> ArrayWork:
    *batch, rows, columns = layer.shape
    depth = inputs[0].shape[-1]
    return ArrayWork(K=columns, C=depth, G=math.prod(batch), OX=1, OY=rows, FX=1, FY=1)


def _convolution(layer: Layer, inputs: Sequence[Layer]) -> ArrayWork:
    del inputs
    n_out, in_per_group, kernel_y, kernel_x = layer.params["weight"]
    groups = layer.int_attr("groups", 1)
    _, height, width = layer.shape
    stride_y, stride_x = layer.pair_attr("stride", 1)
    pad_y, pad_x = layer.pair_attr("padding", 0)
    dilation_y, dilation_x = layer.pair_attr("dilation", 1)
    return ArrayWork(
        K=n_out // groups, C=in_per_group, G=groups, OX=width, OY=height,
        FX=kernel_x, FY=kernel_y, stride_x=stride_x, stride_y=stride_y, pad_x=pad_x, pad_y=pad_y,
        dilation_x=dilation_x, dilation_y=dilation_y,
    )  # fmt: skip


def _pool_as_convolution(layer: Layer, source: Shape) -> ArrayWork:
    channels, height, width = layer.shape
    kernel_y, kernel_x = layer.pair_attr("kernel", 1)
    stride_y, stride_x = layer.pair_attr("stride", 1)
    pad_y, pad_x = layer.pair_attr("padding", 0)
    return ArrayWork(
        K=channels, C=source[0], G=1, OX=width, OY=height, FX=kernel_x, FY=kernel_y,
        stride_x=stride_x, stride_y=stride_y, pad_x=pad_x, pad_y=pad_y,
    )  # fmt: skip


_ON_THE_ARRAY: dict[str, Callable[[Layer, Sequence[Layer]], ArrayWork]] = {
    "conv": _convolution,
    "linear": _linear,
    "matmul": _matmul,
}


def without_constants(graph: LayerGraph) -> LayerGraph:
    """`graph` with additions of what is left to add, as `work_of` costs them.

    Layers keep their cost in the network, and each has it alone too, where nobody knows what its
    inputs were.
    """

    def left(layer: Layer) -> Layer:
        if layer.op != "add":
            return layer
        sources = [graph.by_name[name] for name in layer.inputs]
        terms = tuple(source.name for source in _terms(sources))
        if len(terms) > 1:
            return replace(layer, inputs=terms)
        return replace(layer, op="identity", inputs=(terms or layer.inputs)[:1])

    return replace(graph, layers=tuple(left(layer) for layer in graph.layers))


def _terms(inputs: Sequence[Layer]) -> list[Layer]:
    """What is no removed constant."""
    return [source for source in inputs if source.op != "zero"]


def _addition(layer: Layer, inputs: Sequence[Layer]) -> Work:
    """Only what is not a removed constant is read and added."""
    terms = _terms(inputs)
    if len(terms) < 2:
        return NoWork(layer.op, "has less than two terms that are no removed constants")
    n_out = math.prod(layer.shape)
    return ElementWork(layer.op, n_out * (len(terms) - 1), n_out * len(terms), n_out)


def _elementwise(layer: Layer, inputs: Sequence[Layer]) -> ElementWork:
    n_out = math.prod(layer.shape)
    n_in = sum(math.prod(source.shape) for source in inputs)
    op = layer.op
    if op in ("avg_pool", "max_pool"):
        kernel_y, kernel_x = layer.pair_attr("kernel", 1)
        return ElementWork(op, n_out * kernel_y * kernel_x, n_in, n_out)
    if op == "global_avg_pool":
        return ElementWork(op, n_in, n_in, n_out)
    if op == "mul":
        return ElementWork(op, n_out, n_in, n_out)
    if op in OPS_PER_ELEMENT:
        words_in = n_out if op == "embedding" else n_in
        return ElementWork(op, n_out * OPS_PER_ELEMENT[op], words_in, n_out)
    raise ExportError(
        f"layer {layer.name!r}: operator {op!r} cannot be simulated", code="unsupported_operator"
    )
