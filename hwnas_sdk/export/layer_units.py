"""A network cut into the pieces a runtime executes, each a tiny network of its own.

A convolution and the batch norm and activation that only it feeds are one piece: every runtime
fuses them, and alone they would be counted twice. Layers that compute nothing (input, identity,
flatten) are no pieces. What a piece does is its key, so equal layers of any network share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.layers import Layer, LayerGraph

LAYER_SPACE: Final = "layer"
"""Space under which single layers stand in the store; no network is of it."""

_FREE: Final = frozenset({"input", "identity", "flatten"})
_FUSED_AFTER: Final = {
    "conv": frozenset({"batch_norm", "relu", "relu6", "hswish"}),
    "linear": frozenset({"relu", "relu6", "hswish"}),
    "batch_norm": frozenset({"relu", "relu6", "hswish"}),
}


@dataclass(frozen=True, slots=True)
class LayerUnit:
    """One piece.

    Attributes:
        graph: the piece as a network; its `arch_id` is ``layer:<key>``.
        text: what a person reads, ``conv+batch_norm 16x32x32 -> 16x32x32 k3``.
        n: how often the network it was cut from has it.
    """

    graph: LayerGraph
    text: str
    n: int

    @property
    def id(self) -> str:
        """Identity of what it does."""
        return self.graph.arch_id


def layer_units(graph: LayerGraph) -> list[LayerUnit]:
    """Unique pieces of a network in the order of their first use.

    Raises: ExportError for a layer whose inputs have different shapes: one input cannot feed it.
    """
    found: dict[str, LayerUnit] = {}
    counts: Counter[str] = Counter()
    for chain in _chains(graph):
        unit = _unit(graph, chain)
        counts[unit.id] += 1
        found.setdefault(unit.id, unit)
    return [replace(unit, n=counts[unit.id]) for unit in found.values()]


def _chains(graph: LayerGraph) -> list[list[Layer]]:
    readers: dict[str, list[Layer]] = {}
    for layer in graph:
        for name in set(layer.inputs):
            readers.setdefault(name, []).append(layer)
    chains, taken = [], set()
    for layer in graph:
        if layer.op in _FREE or layer.name in taken:
            continue
        chain = [layer]
        while True:
            after = readers.get(chain[-1].name, [])
            if len(after) != 1 or after[0].op not in _FUSED_AFTER.get(chain[-1].op, ()):
                break
            chain.append(after[0])
            taken.add(after[0].name)
        chains.append(chain)
    return chains


def _unit(graph: LayerGraph, chain: Sequence[Layer]) -> LayerUnit:
    first = chain[0]
    shapes = {graph.by_name[name].shape for name in first.inputs}
    if len(shapes) != 1:
        raise ExportError(
            f"layer {first.name!r}: inputs of different shapes; it cannot be measured alone",
            code="layer_not_alone",
        )
    shape = shapes.pop()
    layers = [Layer("in", "input", (), shape)]
    for number, layer in enumerate(chain):
        # Of several inputs all are the one there is: same work, and no second buffer to read.
        inputs = (layers[-1].name,) * len(layer.inputs)
        layers.append(replace(layer, name=f"l{number}", inputs=inputs))
    key = content_id(
        [[x.op, x.inputs, x.shape, dict(x.attrs), dict(x.params)] for x in layers], length=16
    )
    ops = "+".join(layer.op for layer in chain)
    text = f"{ops} {_size(shape)} -> {_size(chain[-1].shape)}"
    kernel = first.attrs.get("kernel")
    if kernel is not None:
        text += f" k{_size(kernel) if isinstance(kernel, tuple) else kernel}"
    return LayerUnit(LayerGraph(f"{LAYER_SPACE}:{key}", tuple(layers), folded=False), text, 1)


def _size(shape: Sequence[object]) -> str:
    return "x".join(str(size) for size in shape)
