"""The supernetwork of NAS-Bench-201: every cell of the space in one set of weights.

Skeleton and parameter names are those of `spaces._nasbench201_graph`. Of each edge only the chosen
operator runs. Batch norms have neither scale nor running statistics: they would mix networks.

Sources: MODNAS, section on the supernetwork; the cost-free gradient of inactive choices is GDAS'
(Dong & Yang, CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.layers import LayerGraph, Shape
from hwnas_sdk.spaces.nasbench201 import EDGES, OPERATORS

_EPS: Final = 1e-5
_KERNEL: Final = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

InactiveGradient = Literal["gdas", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetConfig:
    """Size of a supernetwork; the default is the benchmark's skeleton on CIFAR-10.

    Attributes:
        input_shape: (C, H, W); H and W can be halved once for each stage but the first.
        n_classes: of the classifier.
        channels: of each stage.
        cells_per_stage: cells between two reductions.
        inactive: what the gradient of a choice that was not taken is. "gdas": the sum of the
            gradient at the edge's output, as if its operator had put out ones; "zero": nothing.
    """

    input_shape: tuple[int, int, int] = (3, 32, 32)
    n_classes: int = 10
    channels: tuple[int, ...] = (16, 32, 64)
    cells_per_stage: int = 5
    inactive: InactiveGradient = "gdas"


class EntangledConv(nn.Module):
    """ReLU, convolution, batch norm; the 1x1 kernel is the centre tap of the 3x3 one.

    Shapes: input and output (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def kernel(self, size: int) -> Tensor:
        """Weight of the 1x1 or 3x3 convolution, (C, C, size, size): a view, never a copy."""
        return self.conv.weight if size == 3 else self.conv.weight[:, :, 1:2, 1:2]

    def forward(self, x: Tensor, size: int) -> Tensor:
        """Run the convolution of this kernel size."""
        return _norm(functional.conv2d(functional.relu(x), self.kernel(size), padding=size // 2))


class SearchCell(nn.Module):
    """Four nodes and six edges; a node is the sum of its incoming edges."""

    def __init__(self, channels: int, inactive: InactiveGradient) -> None:
        super().__init__()
        self.edges = nn.ModuleList(EntangledConv(channels) for _ in EDGES)
        self.inactive = inactive

    def forward(self, x: Tensor, choices: Tensor, active: Sequence[int]) -> Tensor:
        """Shapes: x and output (N, C, H, W), choices (6, 5) one-hot, active the ones' columns."""
        nodes: list[Tensor | None] = [x, None, None, None]
        for number, (source, target) in enumerate(EDGES):
            value = nodes[source]
            assert value is not None
            out = self._edge(number, value, choices[number], active[number])
            known = nodes[target]
            nodes[target] = out if known is None else known + out
        output = nodes[3]
        assert output is not None
        return output

    def _edge(self, number: int, x: Tensor, choice: Tensor, active: int) -> Tensor:
        """D_a op_a(x) + sum of the other D: the others are 0, but have a gradient."""
        name = OPERATORS[active]
        if name in _KERNEL:
            value = self.edges[number](x, _KERNEL[name])
        elif name == "avg_pool_3x3":
            value = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        else:
            value = x if name == "skip_connect" else torch.zeros_like(x)
        out: Tensor = choice[active] * value
        if self.inactive == "gdas":
            out = out + (choice.sum() - choice[active])
        return out


class ReluConv(nn.Module):
    """ReLU, 3x3 convolution, batch norm: half of a reduction block."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return _norm(self.conv(functional.relu(x)))


class Shortcut(nn.Module):
    """2x2 average pooling and a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, C_in, H, W) -> (N, C_out, H / 2, W / 2)."""
        pooled: Tensor = self.conv(functional.avg_pool2d(x, 2))
        return pooled


class Reduction(nn.Module):
    """The residual block between two stages."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a = ReluConv(c_in, c_out, 2)
        self.conv_b = ReluConv(c_out, c_out, 1)
        self.shortcut = Shortcut(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, C_in, H, W) -> (N, C_out, H / 2, W / 2)."""
        out: Tensor = self.conv_b(self.conv_a(x)) + self.shortcut(x)
        return out


class Supernet(nn.Module):
    """All cells of NAS-Bench-201 at once.

    Shapes: images (N, *input_shape) and choices (6, 5) -> logits (N, n_classes).
    """

    def __init__(self, config: SupernetConfig | None = None) -> None:
        """Build it with torch's default initial weights.

        Raises: ModelError for images too small for the stages.
        """
        super().__init__()
        self.config = config = config or SupernetConfig()
        c_in, height, width = config.input_shape
        if (height | width) % 2 ** (len(config.channels) - 1):
            raise ModelError(
                f"{height} x {width} images cannot be halved {len(config.channels) - 1} times"
            )
        self.stem = nn.ModuleDict(
            {"conv": nn.Conv2d(c_in, config.channels[0], 3, padding=1, bias=False)}
        )
        cells: list[nn.Module] = []
        for stage, channels in enumerate(config.channels):
            if stage:
                cells.append(Reduction(config.channels[stage - 1], channels))
            cells += [SearchCell(channels, config.inactive) for _ in range(config.cells_per_stage)]
        self.cells = nn.ModuleList(cells)
        self.head = nn.ModuleDict({"linear": nn.Linear(config.channels[-1], config.n_classes)})

    def forward(self, x: Tensor, choices: Tensor) -> Tensor:
        """Run the network that `choices` names, with gradients to weights and choices.

        Args:
            x: images, (N, *input_shape).
            choices: one-hot by edge, (6, 5), in the order of `EDGES` and `OPERATORS`.

        Raises: ModelError for choices of another shape.
        """
        if choices.shape != (len(EDGES), len(OPERATORS)):
            raise ModelError(f"choices have shape {tuple(choices.shape)}, not (6, 5)")
        active = choices.argmax(1).tolist()
        choices = choices.to(x)
        x = _norm(self.stem["conv"](x))
        for cell in self.cells:
            x = cell(x, choices, active) if isinstance(cell, SearchCell) else cell(x)
        x = functional.relu(_norm(x)).mean((2, 3))  # (N, C, H, W) -> (N, C)
        logits: Tensor = self.head["linear"](x)
        return logits


def one_hot(genotype: Sequence[int]) -> Tensor:
    """Choices of a genotype, (6, 5) float32 without a gradient."""
    return functional.one_hot(torch.tensor(list(genotype)), len(OPERATORS)).float()


def inherited_weights(
    supernet: Supernet, genotype: Sequence[int], graph: LayerGraph
) -> dict[str, Tensor]:
    """Weights a network has inside the supernetwork, by the parameter names of its `graph`.

    Batch norms get scale 1 and shift 0. Their running statistics are those of untrained ones (0
    and 1): a network that inherits weights is evaluated with the statistics of its batches.

    Args:
        supernet: where they come from.
        genotype: which cell; six operators.
        graph: of that cell, in the supernetwork's skeleton, folded or not.

    Raises: ModelError when `graph` has a parameter the supernetwork has not, or another shape.
    """
    state = supernet.state_dict()
    weights = {}
    for name, shape in graph.parameter_shapes.items():
        if name in state:
            weights[name] = _tap(name, state[name], genotype)
        else:
            weights[name] = _of_norm(name, shape)
        if tuple(weights[name].shape) != shape:
            raise ModelError(
                f"{name!r} is {tuple(weights[name].shape)} in the supernetwork, {shape} in the "
                "network",
                code="bad_weights",
            )
    return weights


def _tap(name: str, weight: Tensor, genotype: Sequence[int]) -> Tensor:
    """The part of a weight that the genotype's operator uses."""
    parts = name.split(".")
    if parts[2:3] != ["edges"]:
        return weight
    size = _KERNEL[OPERATORS[genotype[int(parts[3])]]]
    return weight[:, :, 1:2, 1:2] if size == 1 else weight


def _of_norm(name: str, shape: Shape) -> Tensor:
    owner, _, kind = name.rpartition(".")
    if owner.rpartition(".")[2] != "bn":
        raise ModelError(f"the supernetwork has no weight {name!r}", code="bad_weights")
    return torch.ones(shape) if kind in {"weight", "running_var"} else torch.zeros(shape)


def _norm(x: Tensor) -> Tensor:
    """Batch norm by the statistics of the batch, without scale and shift."""
    return functional.batch_norm(x, None, None, training=True, eps=_EPS)
