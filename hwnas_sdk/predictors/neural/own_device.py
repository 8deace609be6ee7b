"""Networks that learn one device from its own values alone: BRP-NAS' latency GCN and GATES.

Both are published for hundreds of labels of the device; ten are what the other models get, and
with ten they show what transfer is worth. Neither looks at the known devices or states an sd.

Sources: BRP-NAS (Dudziak et al., NeurIPS 2020), GATES (Ning et al., ECCV 2020).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.neural.fit import FitPlan, fit
from hwnas_sdk.predictors.neural.gates import GatesNet, hinge
from hwnas_sdk.predictors.neural.graph_network import GraphNetwork, brp_graphs
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.spaces import get_space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Genotypes = NDArray[np.integer]

_CHUNK: Final = 2048
# Fewer samples than this leave nothing to stop early on.
_LEAST_FOR_VALIDATION: Final = 50
_VALIDATION_SHARE: Final = 0.1


class AdaptedNetwork:
    """A trained network of one device; score times slope plus offset is its prediction."""

    def __init__(self, score: _Scorer, *, offset: float = 0.0, slope: float = 1.0) -> None:
        self._score, self.offset, self.slope = score, offset, slope

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean, and NaN for the sd. Shapes: (n, 6) -> two (n,)."""
        mean = self.offset + self.slope * self._score.of(checked_cells(genotypes))
        return Prediction(mean, np.full(len(mean), np.nan))


class _Scorer(ABC):
    """A network with the form of its inputs."""

    net: nn.Module

    def of(self, cells: Ints) -> Floats:
        """Scores, (n, 6) -> (n,)."""
        self.net.eval()
        parts = [np.empty(0)]
        with torch.no_grad():
            for start in range(0, len(cells), _CHUNK):
                scores = self.score(cells[start : start + _CHUNK])
                parts.append(scores.double().numpy())
        return np.concatenate(parts)

    @abstractmethod
    def score(self, cells: Ints) -> Tensor:
        """(n, 6) -> (n,)."""


class _GraphScorer(_Scorer):
    def __init__(self, net: GraphNetwork) -> None:
        self.net: GraphNetwork = net

    def of(self, cells: Ints) -> Floats:
        """Scores of each different graph once: about half of all cells share theirs."""
        graphs = brp_graphs(cells)
        flat = torch.cat([graphs.nodes.flatten(1), graphs.adjacency.flatten(1)], dim=1)
        codes = np.packbits(flat.numpy() > 0, axis=1)
        _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        scores: Floats = super().of(cells[first])[inverse.reshape(-1)]
        return scores

    def score(self, cells: Ints) -> Tensor:
        scores: Tensor = self.net(brp_graphs(cells))[:, 0]
        return scores


class _GateScorer(_Scorer):
    def __init__(self, net: GatesNet) -> None:
        self.net: GatesNet = net

    def score(self, cells: Ints) -> Tensor:
        scores: Tensor = self.net(torch.from_numpy(cells))
        return scores


class _OwnDeviceModel:
    """Nothing is learned before the device is there; `torch_device` is where it is then trained."""

    def __init__(
        self, seed: int, on_event: EventSink = ignore, *, torch_device: str = "cpu"
    ) -> None:
        self.seed = seed
        self.on_event = on_event
        self.torch_device = torch_device

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
        torch_device: str = "cpu",
    ) -> Self:
        """Check the known devices and the torch device, and forget the former."""
        checked_known(genotypes, known)
        chosen_torch_device(torch_device)
        return cls(seed, on_event, torch_device=torch_device)


class BrpNasModel(_OwnDeviceModel):
    """BRP-NAS' latency predictor: a GCN on the pruned operator graph, L1 loss, from scratch.

    Differs from the paper: a tenth of 50 or more samples is the validation set it stops early on
    (the paper has 100 more for that), fewer train to the end; the learning rate falls with a
    cosine instead of on plateaus; targets are divided by their mean; batches of two, or of ten
    from 100 samples on, instead of one, for the time it takes.
    """

    epochs = 250
    learning_rate = 4e-4
    weight_decay = 5e-4
    patience = 35
    dropout = 0.002

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedNetwork:
        """Train on the device's samples. `rel_sd` is not used. Raises: ModelError."""
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        level = float(y.mean())
        place = chosen_torch_device(self.torch_device)
        graphs = brp_graphs(cells).to(place)
        targets = torch.from_numpy((y / level).astype(np.float32)).to(place)
        n_kept_back = int(_VALIDATION_SHARE * len(y)) if len(y) >= _LEAST_FOR_VALIDATION else 0
        is_held_out = _held_out(cells, n_kept_back, self.seed)
        held_out = torch.from_numpy(np.flatnonzero(is_held_out)).to(place)
        trained = torch.from_numpy(np.flatnonzero(~is_held_out)).to(place)
        with seeded(self.seed):
            net = GraphNetwork(n_out=1, dropout=self.dropout)

        def loss(rows: Tensor) -> Tensor:
            at = trained[rows]
            return functional.l1_loss(net(graphs[at])[:, 0], targets[at], reduction="sum")

        def judge() -> float:
            return -float(functional.l1_loss(net(graphs[held_out])[:, 0], targets[held_out]))

        plan = FitPlan(
            epochs=self.epochs,
            batch_size=2 if len(y) < 100 else 10,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience if n_kept_back else None,
            seed=self.seed,
        )
        # A million weights and a batch of one: an unfused optimiser would take most of the time.
        groups = [{"params": list(net.parameters()), "fused": True}]
        fit(
            net, loss, len(trained), plan, judge=judge if n_kept_back else None, groups=groups,
            on_event=self.on_event, task="train brp-nas", torch_device=self.torch_device,
        )  # fmt: skip
        return AdaptedNetwork(_GraphScorer(net), slope=level)


def _held_out(cells: Ints, n: int, seed: int) -> NDArray[np.bool_]:
    """At least n rows (none for 0) of whole function families, (k, 6) -> (k,)."""
    held_out = np.zeros(len(cells), dtype=np.bool_)
    if not n:
        return held_out
    families = get_space("nasbench201").family_numbers(cells)
    for family in child_rng(seed, "brp split").permutation(len(np.unique(families))):
        if held_out.sum() >= n:
            break
        held_out |= families == family
    if held_out.all():
        raise ModelError("all samples compute the same function: nothing to stop early on")
    return held_out


class GatesModel(_OwnDeviceModel):
    """GATES trained on the order of the device's samples; an affine fit gives it their unit."""

    epochs = 200
    batch_size = 128  # architectures; with at most 4 pairs each, the paper's 512 pairs
    learning_rate = 1e-3

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedNetwork:
        """Train on the samples' order. `rel_sd` is not used. Raises: ModelError."""
        del rel_sd
        cells, y = checked_samples(genotypes, values, at_least=2)
        place = chosen_torch_device(self.torch_device)
        inputs, targets = torch.from_numpy(cells).to(place), torch.from_numpy(y).to(place)
        with seeded(self.seed):
            net = GatesNet()

        def loss(rows: Tensor) -> Tensor:
            return hinge(net(inputs[rows]), targets[rows])

        plan = FitPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            schedule="constant",
            seed=self.seed,
        )
        fit(
            net, loss, len(y), plan,
            on_event=self.on_event, task="train gates", torch_device=self.torch_device,
        )  # fmt: skip
        scorer = _GateScorer(net)
        offset, slope = _affine(scorer.of(cells), y)
        return AdaptedNetwork(scorer, offset=offset, slope=slope)


def _affine(scores: Floats, y: Floats) -> tuple[float, float]:
    """Least squares y = offset + slope * score with a slope that keeps the order of the scores."""
    spread = float(scores.var())
    covariance = float(np.mean((scores - scores.mean()) * (y - y.mean())))
    slope = covariance / spread if spread > 0 else 0.0
    if slope <= 0 or spearman(scores, y) is None:
        slope = float(y.std() or y.mean()) / (np.sqrt(spread) or 1.0)
    return float(y.mean() - slope * scores.mean()), slope
