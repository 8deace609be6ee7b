"""`LayerGraph`: the one description of a network.

ONNX, torch, MACs, parameters, features, look-up tables and simulators are all derived from it.
The operator set is small and closed; a new operator is one entry in `OPS` plus one parity test.
Shapes leave out the batch dimension: an image is (C, H, W), a vector is (C,).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import content_id

AttrValue = int | float | str | tuple[int, ...]
Shape = tuple[int, ...]

OPS: Final[frozenset[str]] = frozenset(
    {
        "input",  # attrs: none; shape is the input's
        "conv",  # kernel, stride, padding, dilation, groups; params weight[, bias]
        "batch_norm",  # eps; params weight, bias, running_mean, running_var
        "relu",
        "relu6",
        "hswish",
        "hsigmoid",
        "sigmoid",
        "tanh",
        "gelu",
        "identity",
        "zero",  # executed as x * 0
        "avg_pool",  # kernel, stride, padding, count_include_pad
        "max_pool",  # kernel, stride, padding
        "global_avg_pool",  # (C, H, W) -> (C,)
        "add",  # two or more inputs of one shape
        "mul",  # two inputs; (C,) broadcasts over (C, H, W)
        "concat",  # axis 0 (channels)
        "linear",  # params weight (out, in)[, bias]
        "matmul",  # two inputs
        "softmax",  # last axis
        "layer_norm",  # eps; params weight, bias
        "embedding",  # params weight (n, d)
        "flatten",
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator.

    Attributes:
        name: unique in the graph, dotted (``cells.3.edges.0.conv``); parameters are
            ``{name}.{param}``.
        op: a member of `OPS`.
        inputs: names of the layers whose outputs it reads, in order.
        shape: output shape without the batch dimension.
        attrs: operator attributes; sequences are tuples.
        params: parameter name -> shape, in torch's layout (conv: out, in / groups, kh, kw).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)
    params: Mapping[str, Shape] = field(default_factory=dict)

    def int_attr(self, key: str, default: int) -> int:
        """Integer attribute `key`."""
        value = self.attrs.get(key, default)
        assert isinstance(value, int)
        return value

    def float_attr(self, key: str, default: float) -> float:
        """Float attribute `key`."""
        value = self.attrs.get(key, default)
        assert isinstance(value, int | float)
        return float(value)

    def pair_attr(self, key: str, default: int | tuple[int, int]) -> tuple[int, int]:
        """Attribute `key` for (height, width); one integer stands for both."""
        value = self.attrs.get(key, default)
        if isinstance(value, int):
            return (value, value)
        assert isinstance(value, tuple)
        height, width = value
        return (height, width)

    @property
    def n_params(self) -> int:
        """Trainable parameters: everything but batch norm's running statistics."""
        return sum(
            math.prod(shape)
            for key, shape in self.params.items()
            if key not in ("running_mean", "running_var")
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates: convolutions and linear layers, and linear bias additions.

        That is how NAS-Bench-201 counts; batch norm, activations, pooling and additions are free.
        """
        if self.op == "conv":
            _, in_per_group, kernel_h, kernel_w = self.params["weight"]
            return math.prod(self.shape) * in_per_group * kernel_h * kernel_w
        if self.op == "linear":
            _, in_features = self.params["weight"]
            return math.prod(self.shape) * (in_features + ("bias" in self.params))
        return 0


@dataclass(frozen=True)
class LayerGraph:
    """Layers in topological order; the first is the input, the last is the output.

    Attributes:
        arch_id: `Architecture.id`.
        layers: in an order in which each layer comes after its inputs.
        folded: whether this is the canonical live graph.
    """

    arch_id: str
    layers: tuple[Layer, ...]
    folded: bool

    def __post_init__(self) -> None:
        """Check names, order and operators.

        Raises: ExportError naming the layer.
        """
        seen: set[str] = set()
        for layer in self.layers:
            if layer.op not in OPS:
                raise ExportError(f"layer {layer.name!r}: unknown operator {layer.op!r}")
            if layer.name in seen:
                raise ExportError(f"layer {layer.name!r} is defined twice")
            if not seen.issuperset(layer.inputs):
                missing = next(name for name in layer.inputs if name not in seen)
                raise ExportError(f"layer {layer.name!r} reads {missing!r}, which is not there")
            seen.add(layer.name)
        if not self.layers or self.layers[0].op != "input":
            raise ExportError("a layer graph starts with its input")

    def __iter__(self) -> Iterator[Layer]:
        """Layers in topological order."""
        return iter(self.layers)

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def input(self) -> Layer:
        """The input layer."""
        return self.layers[0]

    @property
    def output(self) -> Layer:
        """The output layer."""
        return self.layers[-1]

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one inference (see `Layer.macs`)."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def n_params(self) -> int:
        """Trainable parameters."""
        return sum(layer.n_params for layer in self.layers)

    @cached_property
    def depth(self) -> int:
        """Layers on the longest path from input to output, the input not counted."""
        longest: dict[str, int] = {}
        for layer in self.layers:
            below = max((longest[name] for name in layer.inputs), default=0)
            longest[layer.name] = below + (layer.op != "input")
        return longest[self.output.name]

    @cached_property
    def parameter_shapes(self) -> Mapping[str, Shape]:
        """``{layer}.{param}`` -> shape, the keys of a torch state dict."""
        return {
            f"{layer.name}.{key}": shape
            for layer in self.layers
            for key, shape in layer.params.items()
        }

    @cached_property
    def peak_activation_elements(self) -> int:
        """Most activation elements alive at once, layers run in order and none in place."""
        last_use = {name: i for i, layer in enumerate(self.layers) for name in layer.inputs}
        last_use[self.output.name] = len(self.layers)
        alive = peak = 0
        for i, layer in enumerate(self.layers):
            alive += math.prod(layer.shape)
            peak = max(peak, alive)
            if layer.name not in last_use:
                alive -= math.prod(layer.shape)
            for name in set(layer.inputs):
                if last_use[name] == i:
                    alive -= math.prod(self.by_name[name].shape)
        return peak

    @cached_property
    def id(self) -> str:
        """Content hash: equal graphs, equal id."""
        return content_id(
            [
                self.folded,
                [
                    [layer.name, layer.op, layer.inputs, layer.shape, layer.attrs, layer.params]
                    for layer in self.layers
                ],
            ],
            length=32,
        )
