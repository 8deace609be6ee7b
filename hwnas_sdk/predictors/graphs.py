"""Encodings of architectures for learned models: features, operator graphs, tokens, one-hot.

Everything takes genotype matrices (n, d) of a registered space and is vectorised over n. No torch.

Operator graphs put operators on nodes. NAS-Bench-201 has its cell (input, one node per edge,
output); any other space is a chain of its decisions, or in the pruned form the graph of its layers.
Adjacency is receiving: ``adjacency[v, u] = 1`` when node v reads node u.

`encode.encode` is the one entry to all of them.

Sources: HW-PR-NAS (architecture features, tokens), HELP (nine-node form), BRP-NAS (pruned form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.predictors.encodings import SPACE, longest_path
from hwnas_sdk.predictors.layer_graphs import pruned_graphs
from hwnas_sdk.spaces._nasbench201_graph import CELLS_PER_STAGE, CHANNELS
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Reals = NDArray[np.float32]
Bools = NDArray[np.bool_]
Form = Literal["plain", "help", "brp"]

ARCHITECTURE_FEATURES: Final = (
    "flops", "params", "convs", "input_size", "depth", "first_channels", "last_channels",
    "downsamplings",
)  # fmt: skip
PAD, BOS, EOS = 0, 1, 2
N_SPECIAL: Final = 3
_CACHED_GRAPHS: Final = 4096

# NAS-Bench-201: node 0 is the input, node 1 + e the operator of edge e, node 7 the output.
_BASE_EDGES: Final = (
    (0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7),
)  # fmt: skip
_NONE, _SKIP, _CONV1, _CONV3, _POOL = range(5)
_HELP_COLUMN: Final = np.array([4, 5, 2, 3, 1])  # operator -> column of the HELP form
_BRP_COLUMN: Final = np.array([-1, -1, 0, 1, 2])  # none and skip have no node


# --- genotypes ------------------------------------------------------------------------------------


def checked_genotypes(space: SearchSpace, genotypes: NDArray[np.integer]) -> Ints:
    """Genotypes as (n, d) int64. Raises: SpaceError as `SearchSpace.checked`."""
    return space.checked(genotypes)


def _offsets(space: SearchSpace) -> Ints:
    """Where each decision's choices start when all are put side by side, (d,)."""
    return np.concatenate([[0], np.cumsum(space.choices)[:-1]]).astype(np.int64)


def one_hot(space: SearchSpace, genotypes: NDArray[np.integer]) -> Floats:
    """Flat one-hot encoding, (n, d) -> (n, sum of choices)."""
    genes = checked_genotypes(space, genotypes)
    columns = genes + _offsets(space)
    encoded = np.zeros((len(genes), sum(space.choices)))
    np.put_along_axis(encoded, columns, 1.0, axis=1)
    return encoded


# --- token sequences ------------------------------------------------------------------------------


def n_tokens(space: SearchSpace) -> int:
    """Size of the vocabulary, the special tokens `PAD`, `BOS` and `EOS` included."""
    shared = len(set(space.choices)) == 1
    return N_SPECIAL + (space.choices[0] if shared else sum(space.choices))


def tokens(space: SearchSpace, genotypes: NDArray[np.integer]) -> Ints:
    """Token sequences ``BOS, one token per decision, EOS``, (n, d) -> (n, d + 2).

    Decisions with equally many choices share one vocabulary (the operators of a cell); otherwise
    each decision has tokens of its own, because choice 1 of a kernel is not choice 1 of a width.
    """
    genes = checked_genotypes(space, genotypes)
    body = genes + N_SPECIAL
    if len(set(space.choices)) != 1:
        body = body + _offsets(space)
    sequence = np.empty((len(genes), space.n_decisions + 2), dtype=np.int64)
    sequence[:, 0], sequence[:, 1:-1], sequence[:, -1] = BOS, body, EOS
    return sequence


# --- architecture features ------------------------------------------------------------------------


def architecture_features(
    space: SearchSpace, genotypes: NDArray[np.integer], *, dataset: str | None = None
) -> Floats:
    """The 8 architecture features of HW-PR-NAS, unscaled.

    Columns as in `ARCHITECTURE_FEATURES`: multiply-accumulates, parameters, convolutions, input
    height, layers on the longest path (every operator counted), channels of the first and of the
    last feature map, and how often the resolution falls. All are those of the network as it is
    executed, unused operators included.

    NAS-Bench-201 is computed in closed form (microseconds per cell); other spaces build a layer
    graph per architecture (about a millisecond), and the latest ones are remembered.

    Shapes: (n, d) -> (n, 8).
    """
    genes = checked_genotypes(space, genotypes)
    chosen = space.datasets[0] if dataset is None else dataset
    if space.name == SPACE:
        return _nb201_features(space, genes, chosen)
    rows = [_features_of(space, tuple(row), chosen) for row in genes.tolist()]
    return np.array(rows, dtype=np.float64).reshape(-1, len(ARCHITECTURE_FEATURES))


def graph_features(graph: LayerGraph) -> tuple[float, ...]:
    """Architecture features of one layer graph, in the order of `ARCHITECTURE_FEATURES`."""
    maps = [layer.shape for layer in graph if len(layer.shape) == 3]
    convolutions = [layer for layer in graph if layer.op == "conv"]
    sizes = {height for _, height, _ in maps}
    return (
        float(graph.macs),
        float(graph.n_params),
        float(len(convolutions)),
        float(
            graph.input.shape[1] if len(graph.input.shape) == 3 else math.prod(graph.input.shape)
        ),
        float(graph.depth),
        float(convolutions[0].shape[0] if convolutions else 0),
        float(maps[-1][0] if maps else 0),
        float(max(len(sizes) - 1, 0)),
    )


@lru_cache(maxsize=_CACHED_GRAPHS)
def _features_of(space: SearchSpace, genotype: tuple[int, ...], dataset: str) -> tuple[float, ...]:
    return graph_features(space.layers(space.architecture(genotype), dataset=dataset))


def _nb201_features(space: SearchSpace, genes: Ints, dataset: str) -> Floats:
    """Closed form: all but the depth is a sum over the operators, and cells repeat 15 times."""
    base = np.array(_features_of(space, (_NONE,) * 6, dataset))
    per_operator = np.stack(
        [
            np.array(_features_of(space, (op, *(_NONE,) * 5), dataset)) - base
            for op in range(len(_HELP_COLUMN))
        ]
    )
    features: Floats = base + per_operator[genes].sum(axis=1)
    # Layers an operator puts on a path: ReLU, convolution and batch norm, or one.
    weights = (1.0, 1.0, 3.0, 3.0, 1.0)
    every_edge = np.ones(genes.shape, dtype=np.bool_)
    longest = longest_path(genes, weights, every_edge, sums=(0.0, 1.0, 1.0))
    shortest = longest_path(genes[:1] * 0, weights, every_edge[:1], sums=(0.0, 1.0, 1.0))
    n_cells = len(CHANNELS) * CELLS_PER_STAGE
    depth = ARCHITECTURE_FEATURES.index("depth")
    features[:, depth] = base[depth] + n_cells * (longest - shortest)
    return features


# --- operator graphs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class OperatorGraphs:
    """Graphs of n architectures, all of N nodes.

    Shapes: nodes (n, N, O) one-hot, all zero where there is no node; adjacency (n, N, N), 1 where
    the row's node reads the column's, without self loops unless the form has them.
    `readout` is the index of the global node, None without one.
    """

    nodes: Reals
    adjacency: Reals
    readout: int | None

    def __len__(self) -> int:
        """Number of graphs."""
        return len(self.nodes)

    @property
    def present(self) -> Bools:
        """Which nodes exist, (n, N)."""
        exists: Bools = self.nodes.max(axis=2) > 0
        return exists


def operator_graphs(
    space: SearchSpace, genotypes: NDArray[np.integer], *, form: Form = "plain"
) -> OperatorGraphs:
    """Operator graphs of architectures.

    Forms, with their node types for NAS-Bench-201:

    - ``plain``: 8 nodes, no self loops; input, none, skip, conv1x1, conv3x3, avg_pool, output.
    - ``help``: 9 nodes, the last one global, unit diagonal; input, avg_pool, conv1x1, conv3x3,
      none, skip, output, global (the order of HELP's and MODNAS' checkpoints).
    - ``brp``: 9 places, the first one global, unit diagonal; skips contracted, ``none`` removed,
      nodes without a path from input or to output removed, their places left empty; conv1x1,
      conv3x3, avg_pool, input, output, global.

    In another space ``plain`` and ``help`` are a chain of its decisions with node types as in
    `tokens`, and ``brp`` is `layer_graphs.pruned_graphs` of the layers on the space's default
    dataset (a millisecond each): as many places as the largest of these architectures needs.

    Raises: SpaceError for what is no genotype matrix of `space`; ConfigError for another form.
    """
    if form not in get_args(Form):
        raise ConfigError(
            f"unknown graph form {form!r}", hint=f"one of {', '.join(get_args(Form))}"
        )
    genes = checked_genotypes(space, genotypes)
    if form == "brp":
        if space.name == SPACE:
            return _brp(genes)
        layers = [space.layers(space.architecture(row)) for row in genes]
        return OperatorGraphs(*pruned_graphs(layers), readout=0)
    if form == "help" and space.name == SPACE:
        return _with_global_node(_cell(genes, 7, _HELP_COLUMN, input_column=0, output_column=6))
    plain = (
        _cell(genes, 7, np.arange(1, 6), input_column=0, output_column=6)
        if space.name == SPACE
        else _chain(space, genes)
    )
    return _with_global_node(plain) if form == "help" else plain


def _cell(
    genes: Ints, n_types: int, column_of: Ints, *, input_column: int, output_column: int
) -> OperatorGraphs:
    """NAS-Bench-201 with operators on nodes; the edges are the same for every cell."""
    n = len(genes)
    nodes = np.zeros((n, 8, n_types), dtype=np.float32)
    nodes[:, 0, input_column] = nodes[:, 7, output_column] = 1.0
    np.put_along_axis(nodes[:, 1:7], column_of[genes][:, :, None], 1.0, axis=2)
    adjacency = np.zeros((8, 8), dtype=np.float32)
    for source, target in _BASE_EDGES:
        adjacency[target, source] = 1.0
    return OperatorGraphs(nodes, np.broadcast_to(adjacency, (n, 8, 8)), None)


def _chain(space: SearchSpace, genes: Ints) -> OperatorGraphs:
    """Input, one node per decision, output, in a row; node types as in `tokens`."""
    n, n_nodes = len(genes), space.n_decisions + 2
    n_types = n_tokens(space) - N_SPECIAL + 2
    nodes = np.zeros((n, n_nodes, n_types), dtype=np.float32)
    nodes[:, 0, 0] = nodes[:, -1, -1] = 1.0
    columns = tokens(space, genes)[:, 1:-1] - N_SPECIAL + 1
    np.put_along_axis(nodes[:, 1:-1], columns[:, :, None], 1.0, axis=2)
    adjacency = np.eye(n_nodes, k=-1, dtype=np.float32)
    return OperatorGraphs(nodes, np.broadcast_to(adjacency, (n, n_nodes, n_nodes)), None)


def _with_global_node(graphs: OperatorGraphs) -> OperatorGraphs:
    """Append a node of its own type that reads every other one; unit diagonal."""
    n, n_nodes, n_types = graphs.nodes.shape
    nodes = np.zeros((n, n_nodes + 1, n_types + 1), dtype=np.float32)
    nodes[:, :-1, :-1] = graphs.nodes
    nodes[:, -1, -1] = 1.0
    first = np.zeros((n_nodes + 1, n_nodes + 1), dtype=np.float32)
    first[:-1, :-1] = graphs.adjacency[0] if n else 0.0
    first[-1, :] = 1.0
    np.fill_diagonal(first, 1.0)
    # Only called for forms whose edges do not depend on the architecture.
    return OperatorGraphs(nodes, np.broadcast_to(first, (n, *first.shape)), n_nodes)


def _brp(genes: Ints) -> OperatorGraphs:
    n = len(genes)
    reads = np.zeros((n, 8, 8), dtype=np.bool_)
    for source, target in _BASE_EDGES:
        reads[:, target, source] = True
    for edge in range(6):
        node, skip = edge + 1, genes[:, edge] == _SKIP
        bridges = reads[:, :, node, None] & reads[:, node, None, :]  # readers x sources
        reads |= bridges & skip[:, None, None]
        gone = skip | (genes[:, edge] == _NONE)
        reads[gone, node, :] = reads[gone, :, node] = False
    kept = _between(reads)
    reads &= kept[:, :, None] & kept[:, None, :]
    nodes = np.zeros((n, 9, 6), dtype=np.float32)
    nodes[:, 0, 5] = 1.0
    nodes[:, 1, 3], nodes[:, 8, 4] = 1.0, 1.0
    for op in (_CONV1, _CONV3, _POOL):
        nodes[:, 2:8, _BRP_COLUMN[op]] = (genes == op) & kept[:, 1:7]
    adjacency = np.zeros((n, 9, 9), dtype=np.float32)
    adjacency[:, 1:, 1:] = reads
    adjacency[:, 0, :] = nodes.any(axis=2)
    adjacency[:, range(9), range(9)] = nodes.any(axis=2)
    return OperatorGraphs(nodes, adjacency, 0)


def _between(reads: Bools) -> Bools:
    """Nodes on a path from node 0 to the last one, (n, N, N) -> (n, N); the ends always are."""
    n, n_nodes, _ = reads.shape
    after = np.zeros((n, n_nodes), dtype=np.bool_)
    before = np.zeros((n, n_nodes), dtype=np.bool_)
    after[:, 0] = before[:, -1] = True
    # Nodes are in topological order: one pass each way suffices.
    for node in range(1, n_nodes):
        after[:, node] = (reads[:, node, :node] & after[:, :node]).any(axis=1)
    for node in range(n_nodes - 2, -1, -1):
        before[:, node] = (reads[:, node + 1 :, node] & before[:, node + 1 :]).any(axis=1)
    kept = after & before
    kept[:, 0] = kept[:, -1] = True
    return kept
