"""What a layer graph says about an architecture of any space: operators as a graph, and counted.

The pruned graph does to the layers of any network what BRP-NAS does to a cell: what changes no
shape and has no choice of its own (identity, norms, activations, additions, concatenations) is
contracted, zeros are removed, and so is everything without a path from the input or to the output.
Layers are told apart by operator and, for convolutions, by kernel; not by width.

Source: BRP-NAS (Dudziak et al., NeurIPS 2020), carried over to layer graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.layers import OPS, Layer, LayerGraph

Floats = NDArray[np.float64]
Reals = NDArray[np.float32]

_KERNELS: Final = (1, 3, 5, 7)
_CONVOLUTIONS: Final = (*(f"conv{kernel}" for kernel in _KERNELS), "conv_other")
_CONTRACTED: Final = frozenset(
    {
        "identity", "batch_norm", "layer_norm", "flatten", "add", "concat",
        "relu", "relu6", "hswish", "hsigmoid", "sigmoid", "tanh", "gelu",
    }
)  # fmt: skip
_KINDS: Final = (*_CONVOLUTIONS, *sorted(OPS - {"conv", "input"}))
_WEIGHING: Final = frozenset({*_CONVOLUTIONS, "linear", "matmul", "embedding"})

PRUNED_TYPES: Final = (
    *(kind for kind in _KINDS if kind not in _CONTRACTED and kind != "zero"),
    "input", "output", "global",
)  # fmt: skip
LAYER_FEATURES: Final = (
    *(f"raw_{kind}" for kind in _KINDS),
    *(f"live_{kind}" for kind in _KINDS),
    "dead_layers", "live_joins", "live_path_layers", "live_path_weights", "log_macs", "log_params",
)  # fmt: skip


def live_layers(graph: LayerGraph) -> frozenset[str]:
    """Names of the layers through which the input reaches the output; a zero lets nothing past."""
    seen: set[str] = set()
    for layer in graph:
        if layer.op == "input" or (layer.op != "zero" and not seen.isdisjoint(layer.inputs)):
            seen.add(layer.name)
    wanted = {graph.layers[-1].name}
    for layer in reversed(graph.layers):
        if layer.name in wanted and layer.op != "zero":
            wanted.update(layer.inputs)
    return frozenset(seen & wanted)


def layer_features(graph: LayerGraph) -> Floats:
    """Counts and paths of one network, columns as in `LAYER_FEATURES`: (F,).

    Layers of each kind, in the graph (``raw``) and on a path from input to output (``live``);
    layers that are dead; live inputs beyond the first of each layer; layers, and layers with
    weights, on the longest live path; log(1 + x) of operations and parameters.
    """
    live = live_layers(graph)
    counts = dict.fromkeys(LAYER_FEATURES, 0.0)
    longest: dict[str, tuple[int, int]] = {}
    for layer in graph:
        if layer.op == "input":
            longest[layer.name] = (0, 0)
            continue
        kind = _kind(layer)
        counts[f"raw_{kind}"] += 1
        if layer.name not in live:
            counts["dead_layers"] += 1
            continue
        counts[f"live_{kind}"] += 1
        below = [longest[name] for name in layer.inputs if name in live]
        counts["live_joins"] += len(below) - 1
        hops, weights = (max(part) for part in zip(*below, strict=True))
        longest[layer.name] = (hops + 1, weights + (kind in _WEIGHING))
    hops, weights = longest.get(graph.layers[-1].name, (0, 0))
    counts["live_path_layers"], counts["live_path_weights"] = float(hops), float(weights)
    counts["log_macs"], counts["log_params"] = np.log1p(graph.macs), np.log1p(graph.n_params)
    return np.array(list(counts.values()))


def pruned_graphs(graphs: Sequence[LayerGraph]) -> tuple[Reals, Reals]:
    """Pruned operator graphs: nodes (n, N, O) one-hot in `PRUNED_TYPES`, adjacency (n, N, N).

    The first place is a global node that reads all there are, the second the input, then the
    operators in order, and the last place the output. N is that of the largest of these graphs;
    places of a smaller one are empty. Rows read columns; the diagonal of what is there is 1.
    """
    pruned = [_pruned(graph) for graph in graphs]
    n_places = max((len(kinds) for kinds, _ in pruned), default=1) + 2
    nodes = np.zeros((len(pruned), n_places, len(PRUNED_TYPES)), dtype=np.float32)
    adjacency = np.zeros((len(pruned), n_places, n_places), dtype=np.float32)
    for row, (kinds, edges) in enumerate(pruned):
        there = ["global", *kinds, "output"]
        # The output's number follows those of the operators; its place is the last.
        place = [*range(len(there) - 1), n_places - 1]
        for at, kind in zip(place, there, strict=True):
            nodes[row, at, PRUNED_TYPES.index(kind)] = 1.0
            adjacency[row, 0, at] = adjacency[row, at, at] = 1.0
        for reader, source in edges:
            adjacency[row, place[reader + 1], place[source + 1]] = 1.0
    return nodes, adjacency


def _pruned(graph: LayerGraph) -> tuple[list[str], set[tuple[int, int]]]:
    """Kinds of the nodes, input first and without the output, and (reader, source) edges.

    The output reads as number ``len(kinds)``.
    """
    live = live_layers(graph)
    kinds, edges = ["input"], set[tuple[int, int]]()
    sources: dict[str, frozenset[int]] = {graph.layers[0].name: frozenset({0})}
    for layer in graph.layers[1:]:
        if layer.name not in live:
            continue
        read = frozenset[int]().union(*(sources[name] for name in layer.inputs if name in live))
        if (kind := _kind(layer)) in _CONTRACTED:
            sources[layer.name] = read
            continue
        edges.update((len(kinds), source) for source in read)
        sources[layer.name] = frozenset({len(kinds)})
        kinds.append(kind)
    last = sources.get(graph.layers[-1].name, frozenset()) if live else frozenset[int]()
    edges.update((len(kinds), source) for source in last)
    return kinds, edges


def _kind(layer: Layer) -> str:
    if layer.op != "conv":
        return layer.op
    height, width = layer.pair_attr("kernel", 1)
    return f"conv{height}" if height == width and height in _KERNELS else "conv_other"
