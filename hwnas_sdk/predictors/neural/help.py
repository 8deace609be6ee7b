"""HELP: a network that is trained to be tuned to a device by two steps on its ten measurements.

A hypernetwork turns the device vector into factors on the last three layers; step sizes of the
tuning are learned per weight (Meta-SGD); both are trained through the tuning (second order).

Differs from the paper: strict, that is, the ten references are everything measured: they are the
adaptation set, their extrema scale the target, nothing is trimmed by true values. (The released
code measures twenty networks and takes the scale from 720.) Source: Lee et al., NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.neural.fit import FitPlan, fit
from hwnas_sdk.predictors.neural.known_devices import (
    KnownDevices,
    reference_values,
    vector_of,
)
from hwnas_sdk.predictors.neural.latency_net import WIDTH, LatencyNet, cell_net, one_hot
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.references import reference_genotypes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Weights = dict[str, Tensor]

_MODULATED: Final = ("head.architecture_half", "head.hidden", "head.output")
_STRENGTH: Final = 0.01
_LOW, _RANGE = 0.05, 0.9  # the references fill this part of [0, 1]
_CHUNK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpPlan:
    """How to train; sizes of the paper unless it says otherwise.

    Attributes:
        epochs: passes over the known architectures; the paper has 2,000 episodes.
        n_tasks: devices of an episode; half of them are mixed (the paper: 8 known ones).
        n_query: architectures of an episode.
        n_steps: tuning steps.
        step_size: of every weight before training.
        kl_weight: of the hypernetwork's distribution against N(0, 1).
        n_draws: of the modulation, averaged when predicting.
    """

    epochs: int = 8
    n_tasks: int = 4
    n_query: int = 200
    n_steps: int = 2
    learning_rate: float = 1e-3
    step_size: float = 1e-3
    kl_weight: float = 0.1
    n_draws: int = 10
    threshold: float = 0.05


class HelpNet(nn.Module):
    """Base network, hypernetwork and step sizes."""

    def __init__(self, n_references: int, step_size: float) -> None:
        super().__init__()
        self.base = cell_net(n_references)
        n_modulated = WIDTH + 2 * WIDTH + 2 * WIDTH + len(_MODULATED)
        self.hyper = nn.Sequential(
            nn.Linear(n_references, n_references), nn.ReLU(),
            nn.Linear(n_references, 2 * n_modulated),
        )  # fmt: skip
        self.log_steps = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(torch.full_like(p, float(np.log(step_size))))
                for name, p in self.base.named_parameters()
            }
        )

    def modulation(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd of the factors of a device, (k,) -> two (m,)."""
        mean, raw_sd = self.hyper(vector).chunk(2)
        return mean, functional.softplus(raw_sd)

    def modulated(self, drawn: Tensor) -> Weights:
        """Base weights with a device's factors on the last layers; drawn (m,)."""
        weights: Weights = dict(self.base.named_parameters())
        start = 0
        for name in _MODULATED:
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            n = weight.shape[1]
            weights[f"{name}.weight"] = weight * (1.0 + _STRENGTH * drawn[start : start + n])
            weights[f"{name}.bias"] = bias + _STRENGTH * drawn[start + n]
            start += n + 1
        return weights

    def tuned(
        self, weights: Weights, hot: Tensor, vector: Tensor, target: Tensor, n_steps: int
    ) -> Weights:
        """Weights after tuning on (k, 6, 5) architectures and their (k,) targets."""
        for _ in range(n_steps):
            loss = functional.mse_loss(self.call(weights, hot, vector), target)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=self.training)
            weights = {
                name: weight - self.log_steps[name.replace(".", "/")].exp() * slope
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            }
        return weights

    def call(self, weights: Weights, hot: Tensor, vector: Tensor) -> Tensor:
        """Prediction with given weights, (n, 6, 5), (k,) -> (n,)."""
        answer: Tensor = functional_call(self.base, weights, (hot, vector[None]))[0]
        return answer


@dataclass(frozen=True)
class AdaptedHelp:
    """Tuned weights, one set per draw of the modulation."""

    net: LatencyNet
    draws: tuple[Weights, ...]
    vector: Tensor
    least: float
    spread: float

    def predict(self, genotypes: NDArray[np.integer]) -> Prediction:
        """Mean over the draws; the sd is NaN. Shapes: (n, 6) -> two (n,)."""
        total = np.concatenate(list(self._chunks(one_hot(checked_cells(genotypes)))))
        mean = self.least + self.spread * (total - _LOW) / _RANGE
        return Prediction(mean, np.full(len(mean), np.nan))

    def _chunks(self, hot: Tensor) -> Iterator[Floats]:
        with torch.no_grad():
            for part in torch.split(hot, _CHUNK):
                answers = [
                    functional_call(self.net, weights, (part, self.vector[None]))[0]
                    for weights in self.draws
                ]
                yield torch.stack(answers).mean(dim=0).numpy().astype(np.float64)


@dataclass(frozen=True)
class HelpPredictor:
    """A meta-trained network; see the module."""

    net: HelpNet
    references: Ints
    prior: LatencyPrior
    plan: HelpPlan
    seed: int

    @classmethod
    def fit(
        cls,
        genotypes: NDArray[np.integer],
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        plan: HelpPlan | None = None,
        checkpoint: Path | None = None,
        on_event: EventSink = ignore,
    ) -> HelpPredictor:
        """Meta-train on known devices; see `TransferModel.fit`."""
        chosen = plan or HelpPlan()
        references = reference_genotypes()
        data = KnownDevices.collect(*checked_known(genotypes, known), references)
        with seeded(seed):
            net = HelpNet(len(references), chosen.step_size)
        steps = FitPlan(
            epochs=chosen.epochs,
            batch_size=chosen.n_query,
            learning_rate=chosen.learning_rate,
            clip_norm=5.0,
            seed=seed,
        )
        episode = _Episode(net, data, one_hot(data.genotypes), one_hot(references), chosen)
        fit(
            net, episode.loss, len(data.genotypes), steps,
            checkpoint=checkpoint, on_event=on_event, task="train help",
        )  # fmt: skip
        return cls(net, references, data.prior, chosen, seed)

    def adapt(
        self, genotypes: NDArray[np.integer], values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedHelp:
        """Tune to a device; see `TransferModel.adapt` and `MetaPredictor.adapt`."""
        cells, seen = checked_samples(genotypes, values)
        told = reference_values(self.prior, self.references, cells, seen, rel_sd)
        columns = torch.from_numpy(told.astype(np.float32))[None]
        vector, least, spread = vector_of(columns)
        hot, target = one_hot(self.references), _LOW + _RANGE * vector[0]
        mean, sd = self.net.modulation(vector[0])
        draws = []
        with seeded(self.seed):
            for _ in range(self.plan.n_draws):
                weights = self.net.modulated(mean + sd * torch.randn_like(sd))
                tuned = self.net.tuned(weights, hot, vector[0], target, self.plan.n_steps)
                draws.append({name: weight.detach() for name, weight in tuned.items()})
        return AdaptedHelp(
            self.net.base, tuple(draws), vector[0].detach(), float(least), float(spread)
        )

    def settings(self) -> dict[str, Any]:
        """Plain data for a card."""
        return {**asdict(self.plan), "references": self.references.tolist()}


@dataclass(frozen=True)
class _Episode:
    net: HelpNet
    data: KnownDevices
    hot: Tensor
    reference_hot: Tensor
    plan: HelpPlan

    def loss(self, rows: Tensor) -> Tensor:
        """Mean query loss over some devices after each was tuned on its references."""
        n_real = max(1, self.plan.n_tasks // 2)
        real = torch.randperm(len(self.data))[:n_real]
        more, more_told = self.data.mixed(rows, self.plan.n_tasks - n_real)
        columns = torch.cat([self.data.columns[real][:, rows], more])
        vectors, least, spread = vector_of(torch.cat([self.data.references[real], more_told]))
        targets = _LOW + _RANGE * (columns - least) / spread
        total = columns.new_zeros(())
        for vector, target in zip(vectors, targets, strict=True):
            mean, sd = self.net.modulation(vector)
            weights = self.net.modulated(mean + sd * torch.randn_like(sd))
            tuned = self.net.tuned(
                weights, self.reference_hot, vector, _LOW + _RANGE * vector, self.plan.n_steps
            )
            there = torch.isfinite(target)
            answer = self.net.call(tuned, self.hot[rows], vector)[there]
            total = total + functional.smooth_l1_loss(
                answer, target[there], beta=self.plan.threshold
            )
            apart = 0.5 * (mean**2 + sd**2 - 1.0 - 2.0 * torch.log(sd)).mean()
            total = total + self.plan.kl_weight * _STRENGTH * apart
        return total / len(vectors)
