"""BRP-NAS' graph network: four graph convolutions on the pruned operator graph of a cell.

Source: BRP-NAS (Dudziak et al., NeurIPS 2020). The adjacency is not normalised: layer norm takes
the scale out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.predictors.graphs import operator_graphs
from hwnas_sdk.spaces import get_space

N_TYPES = 6


@dataclass(frozen=True)
class Graphs:
    """n graphs with the global node first: nodes (n, 9, 6), adjacency (n, 9, 9)."""

    nodes: Tensor
    adjacency: Tensor

    def __len__(self) -> int:
        """Number of graphs."""
        return len(self.nodes)

    def __getitem__(self, rows: Tensor) -> Graphs:
        """Some of them."""
        return Graphs(self.nodes[rows], self.adjacency[rows])

    def to(self, place: torch.device) -> Graphs:
        """The same on another torch device."""
        return Graphs(self.nodes.to(place), self.adjacency.to(place))


def brp_graphs(cells: NDArray[np.integer]) -> Graphs:
    """Pruned graphs of NAS-Bench-201 cells, (n, 6). Raises: SpaceError."""
    graphs = operator_graphs(get_space("nasbench201"), cells, form="brp")
    return Graphs(torch.from_numpy(graphs.nodes), torch.from_numpy(graphs.adjacency))


class GraphNetwork(nn.Module):
    """Graph convolution, layer norm, ReLU, dropout, four times; linear on the global node."""

    def __init__(
        self, *, n_out: int, hidden: int = 600, n_layers: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [N_TYPES] + [hidden] * n_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(n_layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_out)

    def embed(self, graphs: Graphs) -> Tensor:
        """The global node after the last layer, n graphs -> (n, hidden)."""
        hidden, mixing = graphs.nodes, graphs.adjacency
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True), start=1):
            if number == len(self.layers):
                mixing = mixing[:, :1]  # only the global node is read: no other is needed
            # A (H W' + b) = (A H) W' + (A 1) b, which is cheaper for one row of A.
            assert isinstance(layer, nn.Linear)
            mixed = functional.linear(mixing @ hidden, layer.weight)
            mixed = mixed + mixing.sum(dim=2, keepdim=True) * layer.bias
            hidden = self.dropout(torch.relu(norm(mixed)))
        return hidden[:, 0]

    def forward(self, graphs: Graphs) -> Tensor:
        """N graphs -> (n, n_out)."""
        answers: Tensor = self.head(self.embed(graphs))
        return answers
