"""GATES: operators as gates on the information that flows from the cell's input to its output.

Each of five layers sends a message along every edge (i -> j) with operator o,
sigmoid(emb(o) W_o) * (N_i W_x), and a node becomes the sum of what it receives; ``none`` lets
nothing through. Every node also sends itself one through a gate of its own, else five layers
would be longer than the cell and nothing would arrive. The output node is the embedding.

Source: GATES (Ning et al., ECCV 2020).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_N_NODES: Final = 4
_N_OPERATORS: Final = 5  # the first is none
_SELF: Final = _N_OPERATORS  # row of the embedding for a node's message to itself
_MARGIN: Final = 0.1
_PAIRS: Final = 4


class GatesNet(nn.Module):
    """Score of a NAS-Bench-201 cell."""

    def __init__(
        self,
        *,
        embedding: int = 48,
        hidden: int = 96,
        width: int = 128,
        n_layers: int = 5,
        head: int = 300,
        n_head: int = 5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(2, embedding))  # input node; all others
        self.lift = nn.Linear(embedding, hidden)
        self.operators = nn.Parameter(torch.randn(_N_OPERATORS + 1, embedding))
        widths = [hidden] + [width] * n_layers
        self.values = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.gates = nn.ModuleList(nn.Linear(embedding, width) for _ in range(n_layers))
        layers: list[nn.Module] = []
        for i in range(n_head):
            layers += [nn.Linear(width if i == 0 else head, head), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(head, 1))
        # Node j receives along edge e when (j, e) is 1.
        into = torch.zeros(_N_NODES, len(_EDGES))
        for edge, (_, target) in enumerate(_EDGES):
            into[target, edge] = 1.0
        self.register_buffer("into", into)
        self.sources = [source for source, _ in _EDGES]

    def forward(self, genotypes: Tensor) -> Tensor:
        """Shapes: (n, 6) int64 -> (n,)."""
        n = len(genotypes)
        nodes = self.lift(self.start)[[0, 1, 1, 1]].expand(n, _N_NODES, -1)
        passing = (genotypes > 0).to(nodes.dtype)[:, :, None]  # (n, 6, 1)
        for values, gates in zip(self.values, self.gates, strict=True):
            gate = torch.sigmoid(gates(self.operators))  # (6, width)
            sent = values(nodes)  # (n, 4, width)
            messages = passing * gate[genotypes] * sent[:, self.sources]  # (n, 6, width)
            nodes = torch.relu(self.into @ messages + gate[_SELF] * sent)
        score: Tensor = self.head(nodes[:, -1])[:, 0]
        return score


def hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean of max(0, 0.1 - (s_a - s_b)) over pairs with t_a > t_b.

    Every row is paired with at most 4 others, drawn by torch's generator. Shapes: (b,), (b,).
    """
    n, place = len(scores), scores.device
    # Partners at random distances, each distance once: no pair of a row with itself.
    distances = torch.randperm(max(n - 1, 0), device=place)[:_PAIRS] + 1
    order = torch.randperm(n, device=place)
    rows = order.repeat(len(distances))
    others = torch.cat([order.roll(int(distance)) for distance in distances]) if n > 1 else rows
    sign = torch.sign(targets[rows] - targets[others]).to(scores.dtype)
    losses = functional.relu(_MARGIN - sign * (scores[rows] - scores[others]))
    return (losses * sign.abs()).sum() / sign.abs().sum().clamp_min(1.0)
