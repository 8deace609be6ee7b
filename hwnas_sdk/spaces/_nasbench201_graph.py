"""Layer graphs of NAS-Bench-201 cells inside the benchmark's macro skeleton.

Skeleton: 3x3 stem to 16 channels, three stages of five cells at 16, 32 and 64 channels with a
residual reduction block between them, batch norm, ReLU, global average pool, linear classifier.
"""

from __future__ import annotations

from typing import Final

from hwnas_sdk.core.layers import AttrValue, Layer, LayerGraph, Shape
from hwnas_sdk.spaces._nasbench201_family import (
    CELL_INPUT,
    CONV1,
    CONV3,
    NONE,
    POOL,
    SKIP,
    Atoms,
    cell_atoms,
)

DATASETS: Final[dict[str, tuple[Shape, int]]] = {  # name -> (input shape, classes)
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagenet16_120": ((3, 16, 16), 120),
    "digits": ((1, 8, 8), 10),  # not in the benchmark: small enough to train on any machine
}
CHANNELS: Final = (16, 32, 64)
CELLS_PER_STAGE: Final = 5
BN_EPS: Final = 1e-5
_EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_KERNEL: Final = {CONV1: 1, CONV3: 3}


class _Builder:
    """Appends layers and hands back their names."""

    def __init__(self, input_shape: Shape) -> None:
        self.layers: list[Layer] = [Layer("input", "input", (), input_shape)]
        self.shapes: dict[str, Shape] = {"input": input_shape}

    def add(
        self,
        name: str,
        op: str,
        inputs: tuple[str, ...],
        shape: Shape | None = None,
        attrs: dict[str, AttrValue] | None = None,
        params: dict[str, Shape] | None = None,
    ) -> str:
        shape = self.shapes[inputs[0]] if shape is None else shape
        self.layers.append(Layer(name, op, inputs, shape, attrs or {}, params or {}))
        self.shapes[name] = shape
        return name

    def conv(self, name: str, x: str, out: int, kernel: int, stride: int = 1) -> str:
        channels, height, width = self.shapes[x]
        return self.add(
            name,
            "conv",
            (x,),
            (out, height // stride, width // stride),
            {"kernel": kernel, "stride": stride, "padding": kernel // 2, "groups": 1},
            {"weight": (out, channels, kernel, kernel)},
        )

    def batch_norm(self, name: str, x: str) -> str:
        channels = (self.shapes[x][0],)
        names = ("weight", "bias", "running_mean", "running_var")
        return self.add(
            name, "batch_norm", (x,), None, {"eps": BN_EPS}, dict.fromkeys(names, channels)
        )

    def relu_conv_bn(self, name: str, x: str, out: int, kernel: int, stride: int = 1) -> str:
        x = self.add(f"{name}.relu", "relu", (x,))
        x = self.conv(f"{name}.conv", x, out, kernel, stride)
        return self.batch_norm(f"{name}.bn", x)

    def pool(self, name: str, x: str) -> str:
        attrs: dict[str, AttrValue] = {
            "kernel": 3, "stride": 1, "padding": 1, "count_include_pad": 0,
        }  # fmt: skip
        return self.add(name, "avg_pool", (x,), None, attrs)

    def total(self, name: str, terms: list[str]) -> str:
        return terms[0] if len(terms) == 1 else self.add(name, "add", tuple(terms))

    def reduction(self, name: str, x: str, out: int) -> str:
        main = self.relu_conv_bn(f"{name}.conv_a", x, out, 3, stride=2)
        main = self.relu_conv_bn(f"{name}.conv_b", main, out, 3)
        channels, height, width = self.shapes[x]
        attrs: dict[str, AttrValue] = {
            "kernel": 2, "stride": 2, "padding": 0, "count_include_pad": 0,
        }  # fmt: skip
        half = (channels, height // 2, width // 2)
        short = self.add(f"{name}.shortcut.pool", "avg_pool", (x,), half, attrs)
        short = self.conv(f"{name}.shortcut.conv", short, out, 1)
        return self.add(f"{name}.add", "add", (main, short))


def unfolded_graph(arch_id: str, cell: tuple[int, ...], dataset: str) -> LayerGraph:
    """Every operator is executed; ``none`` is x * 0 and a skip is an identity."""
    return _network(arch_id, cell, dataset, folded=False)


def folded_graph(arch_id: str, cell: tuple[int, ...], dataset: str) -> LayerGraph:
    """Canonical live graph: dead branches and skips gone, pools of one value merged."""
    return _network(arch_id, cell, dataset, folded=True)


def _network(arch_id: str, cell: tuple[int, ...], dataset: str, *, folded: bool) -> LayerGraph:
    input_shape, classes = DATASETS[dataset]
    build = _Builder(input_shape)
    x = build.conv("stem.conv", "input", CHANNELS[0], 3)
    x = build.batch_norm("stem.bn", x)
    number = 0
    for stage, channels in enumerate(CHANNELS):
        if stage:
            x = build.reduction(f"cells.{number}", x, channels)
            number += 1
        for _ in range(CELLS_PER_STAGE):
            add_cell = _folded_cell if folded else _unfolded_cell
            x = add_cell(build, f"cells.{number}", x, cell)
            number += 1
    x = build.batch_norm("head.bn", x)
    x = build.add("head.relu", "relu", (x,))
    x = build.add("head.pool", "global_avg_pool", (x,), (CHANNELS[-1],))
    params: dict[str, Shape] = {"weight": (classes, CHANNELS[-1]), "bias": (classes,)}
    build.add("head.linear", "linear", (x,), (classes,), {}, params)
    return LayerGraph(arch_id, tuple(build.layers), folded)


def _unfolded_cell(build: _Builder, name: str, x: str, cell: tuple[int, ...]) -> str:
    channels = build.shapes[x][0]
    nodes = [x]
    for target in (1, 2, 3):
        terms = []
        for edge, (source, to) in enumerate(_EDGES):
            if to != target:
                continue
            at, op, value = f"{name}.edges.{edge}", cell[edge], nodes[source]
            if op == NONE:
                terms.append(build.add(f"{at}.zero", "zero", (value,)))
            elif op == SKIP:
                terms.append(build.add(f"{at}.skip", "identity", (value,)))
            elif op == POOL:
                terms.append(build.pool(f"{at}.pool", value))
            else:
                terms.append(build.relu_conv_bn(at, value, channels, _KERNEL[op]))
        nodes.append(build.total(f"{name}.nodes.{target}", terms))
    return nodes[3]


def _folded_cell(build: _Builder, name: str, x: str, cell: tuple[int, ...]) -> str:
    output, convolutions = cell_atoms(cell)
    channels = build.shapes[x][0]
    value_of = {CELL_INPUT: x}
    sums: dict[frozenset[tuple[tuple[int, int], int]], str] = {}
    for edge, atoms in convolutions.items():  # edges are in topological order
        at = f"{name}.edges.{edge}"
        source = _pooled_sum(build, f"{at}.in", atoms, value_of, sums)
        value_of[edge] = build.relu_conv_bn(at, source, channels, _KERNEL[cell[edge]])
    return _pooled_sum(build, f"{name}.out", output, value_of, sums)


def _pooled_sum(
    build: _Builder,
    name: str,
    atoms: Atoms,
    value_of: dict[int, str],
    sums: dict[frozenset[tuple[tuple[int, int], int]], str],
) -> str:
    """Sum of pool^k(base) over the multiset, by Horner's scheme: pool(pool(A2) + A1) + A0.

    `sums` remembers what the cell has computed already.
    """
    key = frozenset(atoms.items())
    if key in sums:
        return sums[key]
    own = sorted(value_of[base] for (k, base), n in atoms.items() if k == 0 for _ in range(n))
    deeper: Atoms = Atoms({(k - 1, base): n for (k, base), n in atoms.items() if k > 0})
    if deeper:
        below = _pooled_sum(build, f"{name}.below", deeper, value_of, sums)
        own.append(build.pool(f"{name}.pool", below))
    sums[key] = build.total(f"{name}.sum", own)
    return sums[key]
