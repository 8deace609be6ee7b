"""Dense graph convolutions, ours, against torch-geometric's GCNConv: what a training step costs.

    python tools/graph_layers_bench.py [--batches 1,18,128,1024] [--repeat 9] [--json]

Both compute the same function with the same weights: two graph convolutions of width 128 and the
global node, forward and backward, on the nine-node cell graphs of NAS-Bench-201 (HELP form) and on
the pruned layer graphs of whole networks (BRP form of their layers). Turns alternate within one
run; the figure is geometric's time over the dense one, so above 1 dense is faster. Times are of
this machine, ratios less so. Needs ``pip install hwnas-sdk[graph]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from hwnas_sdk.predictors.graphs import operator_graphs
from hwnas_sdk.predictors.layer_graphs import pruned_graphs
from hwnas_sdk.predictors.neural.encoders import normalised
from hwnas_sdk.spaces import get_space

WIDTH = 128
Step = Callable[[], Tensor]


def cell_graphs(n: int) -> tuple[Tensor, Tensor, int]:
    """Nodes (n, 9, 8), adjacency (n, 9, 9) and the global node."""
    space = get_space("nasbench201")
    cells = space.uniform(n, np.random.default_rng(0))
    graphs = operator_graphs(space, cells, form="help")
    return torch.from_numpy(graphs.nodes), torch.from_numpy(np.array(graphs.adjacency)), -1


def network_graphs(n: int) -> tuple[Tensor, Tensor, int]:
    """Nodes (n, N, O), adjacency (n, N, N) and the global node of whole networks."""
    space = get_space("nasbench201")
    # A hundred different ones, repeated: the cost does not depend on which they are.
    some = space.sample(min(n, 100), seed=0)
    nodes, adjacency = pruned_graphs([space.layers(some[i % len(some)]) for i in range(n)])
    return torch.from_numpy(nodes), torch.from_numpy(adjacency), 0


def steps(nodes: Tensor, adjacency: Tensor, readout: int) -> tuple[Step, Step]:
    """A dense and a geometric step, gradients included, that answer the same numbers (n, WIDTH)."""
    n, n_places, n_types = nodes.shape
    mixing = normalised(adjacency)
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(n_types, WIDTH), nn.Linear(WIDTH, WIDTH)])
    convolutions = nn.ModuleList(GCNConv(a, WIDTH, normalize=False) for a in (n_types, WIDTH))
    for layer, convolution in zip(layers, convolutions, strict=True):
        convolution.lin.weight.data.copy_(layer.weight.data)
        convolution.bias.data.copy_(layer.bias.data)
    # Receiver v of graph g reads u: an edge from g N + u to g N + v. Empty places have none.
    graph, reader, source = torch.nonzero(mixing, as_tuple=True)
    edges = torch.stack([graph * n_places + source, graph * n_places + reader])
    weights, flat = mixing[graph, reader, source], nodes.reshape(n * n_places, n_types)

    def dense() -> Tensor:
        value = nodes
        for layer in layers:
            value = torch.relu(mixing @ (value @ layer.weight.T) + layer.bias)
        return _trained(layers, value[:, readout])

    def geometric() -> Tensor:
        value = flat
        for convolution in convolutions:
            value = torch.relu(convolution(value, edges, weights))
        return _trained(convolutions, value.view(n, n_places, WIDTH)[:, readout])

    return dense, geometric


def _trained(layers: nn.Module, answer: Tensor) -> Tensor:
    layers.zero_grad()
    answer.square().mean().backward()
    return answer.detach()


def compare(dense: Step, geometric: Step, repeat: int) -> dict[str, float]:
    """Median milliseconds of each, and their ratio; they take turns."""
    taken_ms: dict[Step, list[float]] = {dense: [], geometric: []}
    for turn in range(repeat + 1):
        for step, times in taken_ms.items():
            start_ns = time.perf_counter_ns()
            step()
            if turn:  # the first one warms up
                times.append((time.perf_counter_ns() - start_ns) / 1e6)
    dense_ms, geometric_ms = (statistics.median(times) for times in taken_ms.values())
    return {
        "dense_ms": dense_ms,
        "geometric_ms": geometric_ms,
        "geometric_over_dense": geometric_ms / dense_ms,
    }


def figures(batches: list[int], repeat: int) -> list[dict[str, float | str]]:
    """One row per kind of graph and batch size."""
    rows: list[dict[str, float | str]] = []
    for kind, graphs in (("cells", cell_graphs), ("networks", network_graphs)):
        for batch in batches:
            nodes, adjacency, readout = graphs(batch)
            timed = compare(*steps(nodes, adjacency, readout), repeat)
            rows.append({"graphs": kind, "places": nodes.shape[1], "batch": batch, **timed})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,18,128,1024", help="graphs per step")
    parser.add_argument("--repeat", type=int, default=9, help="timed steps per figure")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = figures([int(part) for part in options.batches.split(",")], options.repeat)
    if options.json:
        print(json.dumps(rows))
        return
    print("| graphs | places | batch | dense ms | geometric ms | geometric / dense |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['graphs']} | {row['places']} | {row['batch']} | {row['dense_ms']:.2f} "
            f"| {row['geometric_ms']:.2f} | {row['geometric_over_dense']:.2f} |"
        )


if __name__ == "__main__":
    main()
