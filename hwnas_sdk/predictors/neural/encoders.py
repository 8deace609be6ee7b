"""The three encoders of HW-PR-NAS: graph, token sequence and architecture features.

z = [graph 32 | sequence 32 | features 8]: two graph convolutions of width 128 read out at a global
node, two LSTM layers of 32 and 64 units, and the standardised architecture features.

Differs from the paper: "hidden dimension 1" of its graph encoder is read as one readout vector;
graphs are directed with a global node that reads all others, as in BRP-NAS; dropout of the LSTM
lies between its layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.graphs import (
    ARCHITECTURE_FEATURES,
    PAD,
    architecture_features,
    n_tokens,
    operator_graphs,
    tokens,
)
from hwnas_sdk.spaces.base import SearchSpace

_N_FOR_MOMENTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSizes:
    """Widths; the defaults are the paper's (Table 2)."""

    graph_hidden: int = 128
    embedding: int = 32
    lstm: tuple[int, int] = (32, 64)
    code: int = 32
    dropout: float = 0.2

    @property
    def z(self) -> int:
        """Width of the whole code."""
        return 2 * self.code + len(ARCHITECTURE_FEATURES)


@dataclass(frozen=True)
class Inputs:
    """Encoder inputs of n architectures.

    Shapes: nodes (n, N, O), mixing (n, N, N) normalised adjacency, tokens (n, T) int64,
    features (n, 8) unscaled but for a logarithm.
    """

    nodes: Tensor
    mixing: Tensor
    tokens: Tensor
    features: Tensor

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> Inputs:
        """The inputs of some rows."""
        return Inputs(self.nodes[rows], self.mixing[rows], self.tokens[rows], self.features[rows])

    def to(self, device: torch.device) -> Inputs:
        """The same on another device."""
        return Inputs(
            self.nodes.to(device),
            self.mixing.to(device),
            self.tokens.to(device),
            self.features.to(device),
        )


def encoder_inputs(space: SearchSpace, genotypes: NDArray[np.integer]) -> Inputs:
    """Inputs of architectures, (n, d) -> `Inputs` of n.

    Raises: SpaceError for genotypes of another space.
    """
    graphs = operator_graphs(space, genotypes, form="help")
    features = architecture_features(space, genotypes)
    features[:, :2] = np.log1p(features[:, :2])
    return Inputs(
        torch.from_numpy(graphs.nodes),
        normalised(torch.from_numpy(np.ascontiguousarray(graphs.adjacency))),
        torch.from_numpy(tokens(space, genotypes)),
        torch.from_numpy(features.astype(np.float32)),
    )


def normalised(adjacency: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 with D the number of nodes a node reads, self loops included in A.

    Shapes: (n, N, N) -> (n, N, N). Source: Kipf & Welling 2017, for directed graphs.
    """
    scale = adjacency.sum(dim=2).clamp_min(1.0).rsqrt()
    return scale[:, :, None] * adjacency * scale[:, None, :]


class GraphEncoder(nn.Module):
    """Two dense graph convolutions, the global (last) node, a linear layer: -> (n, code)."""

    def __init__(self, n_types: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.first = nn.Linear(n_types, sizes.graph_hidden)
        self.second = nn.Linear(sizes.graph_hidden, sizes.graph_hidden)
        self.out = nn.Linear(sizes.graph_hidden, sizes.code)

    def forward(self, nodes: Tensor, mixing: Tensor) -> Tensor:
        """Shapes: nodes (n, N, O), mixing (n, N, N) -> (n, code)."""
        hidden = torch.relu(mixing @ (nodes @ self.first.weight.T) + self.first.bias)
        # Only the global node is read out: the second layer is needed for its row alone.
        read = (mixing[:, -1:, :] @ hidden)[:, 0]
        code: Tensor = self.out(torch.relu(self.second(read)))
        return code


class SequenceEncoder(nn.Module):
    """Embedding, two LSTM layers, the last valid state, a linear layer."""

    def __init__(self, vocabulary: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, sizes.embedding, padding_idx=PAD)
        self.first = nn.LSTM(sizes.embedding, sizes.lstm[0], batch_first=True)
        self.dropout = nn.Dropout(sizes.dropout)
        self.second = nn.LSTM(sizes.lstm[0], sizes.lstm[1], batch_first=True)
        self.out = nn.Linear(sizes.lstm[1], sizes.code)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: (n, T) -> code (n, code), states of every step (n, T, lstm[1])."""
        states, _ = self.first(self.embedding(sequence))
        states, _ = self.second(self.dropout(states))
        last = (sequence != PAD).sum(dim=1) - 1
        code: Tensor = self.out(states[torch.arange(len(sequence), device=last.device), last])
        return code, states


@dataclass(frozen=True)
class Code:
    """Result of the encoders.

    Shapes: graph (n, 32), sequence (n, 32), features (n, 8), states (n, T, 64).
    """

    graph: Tensor
    sequence: Tensor
    features: Tensor
    states: Tensor

    @property
    def z(self) -> Tensor:
        """The three codes side by side, (n, 72)."""
        return torch.cat([self.graph, self.sequence, self.features], dim=1)


class ArchitectureEncoder(nn.Module):
    """All three encoders of one search space; knows nothing about hardware."""

    center: Tensor
    scale: Tensor

    def __init__(self, space: SearchSpace, sizes: EncoderSizes | None = None) -> None:
        """Fresh weights (from torch's generator) for `space`."""
        super().__init__()
        self.sizes = sizes or EncoderSizes()
        rng = child_rng(0, space.name, "feature moments")
        some = encoder_inputs(space, space.uniform(_N_FOR_MOMENTS, rng))
        self.graph = GraphEncoder(some.nodes.shape[2], self.sizes)
        self.sequence = SequenceEncoder(n_tokens(space), self.sizes)
        deviation = some.features.std(dim=0)
        self.register_buffer("center", some.features.mean(dim=0))
        self.register_buffer(
            "scale", torch.where(deviation > 0, 1.0 / deviation.clamp_min(1e-6), 0.0)
        )

    def forward(self, inputs: Inputs) -> Code:
        """Encode n architectures."""
        sequence, states = self.sequence(inputs.tokens)
        return Code(
            self.graph(inputs.nodes, inputs.mixing),
            sequence,
            (inputs.features - self.center) * self.scale,
            states,
        )
