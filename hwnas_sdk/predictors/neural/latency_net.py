"""The network of HELP and MODNAS that predicts a hardware metric from architecture and device.

An architecture enters as one-hot decisions, which may be relaxed: everything is a product with a
constant matrix, so the output has a gradient with respect to them. Source: MODNAS (Sukthankar et
al., 2025), MetaPredictor; HELP (Lee et al., 2021), base learner.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas_sdk.predictors.graphs import operator_graphs
from hwnas_sdk.spaces import get_space

N_EDGES: Final = 6
N_OPERATORS: Final = 5
WIDTH: Final = 100
_N_LAYERS: Final = 4
_INITIAL: Final = 0.05  # weights of graph convolutions start uniform in +- this


def one_hot(genotypes: NDArray[np.integer]) -> Tensor:
    """NAS-Bench-201 cells as (n, 6, 5) float32."""
    hot = np.asarray(genotypes)[:, :, None] == np.arange(N_OPERATORS)
    return torch.from_numpy(hot.astype(np.float32))


class CellEncoder(nn.Module):
    """Graph convolutions over the nine-node form of a NAS-Bench-201 cell: (n, 6, 5) -> (n, w).

    H <- relu(A H W + b) with the unnormalised A of the form; the global node is read out.
    """

    operators: Tensor
    fixed: Tensor
    adjacency: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        cells = np.repeat(np.arange(N_OPERATORS)[:, None], N_EDGES, axis=1)
        graphs = operator_graphs(get_space("nasbench201"), cells, form="help")
        nodes = torch.from_numpy(np.ascontiguousarray(graphs.nodes))  # (5, 9, 8)
        fixed = nodes[0].clone()
        fixed[1 : 1 + N_EDGES] = 0.0
        self.register_buffer("operators", nodes[:, 1].clone(), persistent=False)  # (5, 8)
        self.register_buffer("fixed", fixed, persistent=False)  # (9, 8)
        adjacency = torch.from_numpy(np.array(graphs.adjacency[0]))
        self.register_buffer("adjacency", adjacency, persistent=False)  # (9, 9)
        sizes = (nodes.shape[2], *[width] * _N_LAYERS)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.uniform_(layer.weight, -_INITIAL, _INITIAL)
            nn.init.uniform_(layer.bias, -_INITIAL, _INITIAL)
        self.readout = nn.Linear(width, width)

    def forward(self, architectures: Tensor) -> Tensor:
        """Shapes: (n, 6, 5) -> (n, width)."""
        n = len(architectures)
        edges = architectures @ self.operators  # (n, 6, 8)
        before, after = self.fixed[:1], self.fixed[1 + N_EDGES :]
        value = torch.cat(
            [before.expand(n, -1, -1), edges, after.expand(n, -1, -1)], dim=1
        )  # (n, 9, 8)
        for layer in self.layers:
            value = torch.relu(self.adjacency @ layer(value) - self._bias(layer))
        encoded: Tensor = torch.relu(self.readout(value[:, -1]))
        return encoded

    def _bias(self, layer: nn.Module) -> Tensor:
        """What makes A (H W + b) the A H W + b of the source, (9, w)."""
        assert isinstance(layer, nn.Linear)
        return (self.adjacency.sum(dim=1, keepdim=True) - 1.0) * layer.bias


class FlatEncoder(nn.Sequential):
    """Two linear layers over flat one-hot decisions, for other spaces: (n, d) -> (n, w)."""

    def __init__(self, n_inputs: int, width: int = WIDTH) -> None:
        super().__init__(nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


class LatencyHead(nn.Module):
    """Encoded architecture and device vector -> one number; knows nothing of the space.

    The first layer takes [architecture | device]; as it is linear, its two halves are computed
    apart, so that n architectures times d devices cost n + d of them.
    """

    def __init__(self, n_device: int, width: int = WIDTH) -> None:
        super().__init__()
        self.device = nn.Sequential(
            nn.Linear(n_device, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.architecture_half = nn.Linear(width, 2 * width)
        self.device_half = nn.Linear(width, 2 * width, bias=False)
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.output = nn.Linear(2 * width, 1)

    def forward(self, encoded: Tensor, devices: Tensor) -> Tensor:
        """Shapes: encoded (n, w), devices (d, n_device) -> (d, n)."""
        left = self.architecture_half(encoded)[None]  # (1, n, 2w)
        right = self.device_half(self.device(devices))[:, None]  # (d, 1, 2w)
        value = torch.relu(self.hidden(torch.relu(left + right)))  # (d, n, 2w)
        answer: Tensor = self.output(value)[..., 0]
        return answer


class LatencyNet(nn.Module):
    """Encoder and head; the encoder may be swapped for that of another space."""

    def __init__(self, encoder: nn.Module, n_device: int, width: int = WIDTH) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = LatencyHead(n_device, width)

    def forward(self, architectures: Tensor, devices: Tensor) -> Tensor:
        """Every architecture on every device: (n, ...), (d, n_device) -> (d, n)."""
        answer: Tensor = self.head(self.encoder(architectures), devices)
        return answer


def cell_net(n_device: int, width: int = WIDTH) -> LatencyNet:
    """The network for NAS-Bench-201."""
    return LatencyNet(CellEncoder(width), n_device, width)
