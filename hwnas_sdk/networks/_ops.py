"""Each operator of `core.layers.OPS` in torch, with the meaning `export` gives it in ONNX.

Operators with parameters are modules; the others are module-level functions (with bound arguments
where they have attributes), so that a network can be pickled and deep-copied.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import Layer, Shape

Step = Callable[..., Tensor]


def build_step(layer: Layer, input_shapes: list[Shape]) -> Step:
    """Return what computes `layer` from its inputs, each with a batch dimension in front.

    Raises: ExportError for inputs or attributes the operator does not take.
    """
    if layer.op in _MODULES:
        return _MODULES[layer.op](layer)
    if layer.op in _WITH_SHAPES:
        return _WITH_SHAPES[layer.op](layer, input_shapes)
    if layer.op in FUNCTIONS:
        return FUNCTIONS[layer.op]
    raise ExportError(f"layer {layer.name!r}: {layer.op!r} cannot stand inside a network")


# --- with parameters --------------------------------------------------------------------------


def _conv(layer: Layer) -> nn.Module:
    out, in_per_group, kernel_h, kernel_w = layer.params["weight"]
    groups = layer.int_attr("groups", 1)
    return nn.Conv2d(
        in_per_group * groups,
        out,
        (kernel_h, kernel_w),
        stride=layer.pair_attr("stride", 1),
        padding=layer.pair_attr("padding", 0),
        dilation=layer.pair_attr("dilation", 1),
        groups=groups,
        bias="bias" in layer.params,
    )


class BatchNorm(nn.Module):
    """Batch norm over axis 1 of an input of any rank >= 2.

    Unlike torch's own it holds the graph's four arrays and nothing else: torch's adds a counter
    (``num_batches_tracked``), also to plain state dicts that are being loaded.

    Shapes: input and output (N, C, ...).
    """

    def __init__(self, n_channels: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(n_channels))
        self.register_buffer("running_var", torch.ones(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the batch's statistics in training, the running ones otherwise."""
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=0.1,
            eps=self.eps,
        )


def _batch_norm(layer: Layer) -> nn.Module:
    return BatchNorm(layer.params["weight"][0], eps=layer.float_attr("eps", 1e-5))


def _linear(layer: Layer) -> nn.Module:
    out_features, in_features = layer.params["weight"]
    return nn.Linear(in_features, out_features, bias="bias" in layer.params)


def _layer_norm(layer: Layer) -> nn.Module:
    return nn.LayerNorm(list(layer.params["weight"]), eps=layer.float_attr("eps", 1e-5))


def _embedding(layer: Layer) -> nn.Module:
    n, width = layer.params["weight"]
    return nn.Embedding(n, width)


_MODULES: Final[dict[str, Callable[[Layer], nn.Module]]] = {
    "conv": _conv,
    "batch_norm": _batch_norm,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "embedding": _embedding,
}


# --- with attributes or shapes ----------------------------------------------------------------


def _avg_pool(layer: Layer, shapes: list[Shape]) -> Step:
    del shapes
    return partial(
        functional.avg_pool2d,
        count_include_pad=bool(layer.int_attr("count_include_pad", 0)),
        **_window(layer),
    )


def _max_pool(layer: Layer, shapes: list[Shape]) -> Step:
    del shapes
    return partial(functional.max_pool2d, **_window(layer))


def _window(layer: Layer) -> dict[str, Any]:
    kernel = layer.pair_attr("kernel", 1)
    return {
        "kernel_size": kernel,
        "stride": layer.pair_attr("stride", kernel),
        "padding": layer.pair_attr("padding", 0),
    }


def _add(layer: Layer, shapes: list[Shape]) -> Step:
    if len(shapes) < 2 or len(set(shapes)) != 1:
        raise ExportError(f"layer {layer.name!r}: add takes two or more inputs of one shape")
    return _sum


def _mul(layer: Layer, shapes: list[Shape]) -> Step:
    if len(shapes) != 2:
        raise ExportError(f"layer {layer.name!r}: mul takes two inputs, got {len(shapes)}")
    left, right = shapes
    if left == right:
        return torch.mul
    if {len(left), len(right)} == {1, 3} and left[0] == right[0]:
        return _channel_mul
    raise ExportError(f"layer {layer.name!r}: mul cannot broadcast {left} over {right}")


def _matmul(layer: Layer, shapes: list[Shape]) -> Step:
    if len(shapes) != 2 or len(shapes[0]) != len(shapes[1]) or len(shapes[0]) < 2:
        raise ExportError(f"layer {layer.name!r}: matmul takes two matrices of one rank")
    return torch.matmul


_WITH_SHAPES: Final[dict[str, Callable[[Layer, list[Shape]], Step]]] = {
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "add": _add,
    "mul": _mul,
    "matmul": _matmul,
}


# --- plain ------------------------------------------------------------------------------------


def _sum(*terms: Tensor) -> Tensor:
    return reduce(torch.add, terms)


def _channel_mul(x: Tensor, y: Tensor) -> Tensor:
    """(N, C) times (N, C, H, W), in either order."""
    if x.dim() == 2:
        return x[:, :, None, None] * y
    return x * y[:, :, None, None]


def _concat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)


def _global_avg_pool(x: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)  # (N, C, H, W) -> (N, C)


def _zero(x: Tensor) -> Tensor:
    return x * 0.0


def _identity(x: Tensor) -> Tensor:
    return x


def _softmax(x: Tensor) -> Tensor:
    return functional.softmax(x, dim=-1)


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1)


FUNCTIONS: Final[dict[str, Step]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hswish": functional.hardswish,
    "hsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "identity": _identity,
    "zero": _zero,
    "global_avg_pool": _global_avg_pool,
    "concat": _concat,
    "softmax": _softmax,
    "flatten": _flatten,
}
