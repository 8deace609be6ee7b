"""HELP: a network that is trained to be tuned to a device by two steps on its ten measurements.

`help_net` is the network; it and its step sizes are trained through the tuning (second order).

Differs from the paper: strict, that is, the ten references are everything measured: they are the
adaptation set, their extrema scale the target, nothing is trimmed by true values. `PaperHelp` does
as the released code: it is tuned on ten networks beside the references and takes the scale from all
that were measured beside them, without the outer tenths (the paper: 900, of which 720 remain). For
both, half of the devices of an episode are mixtures, step sizes learn at a rate of their own (at
that of the weights they hardly leave their start, and two such steps tune nothing), and training
ends after a fixed number of epochs: what could judge it is a device left out of few, and every
published figure is of this plan.
Source: Lee et al., NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.neural.fit import FitPlan, fit
from hwnas_sdk.predictors.neural.help_episode import (
    LOW,
    N_SUPPORT,
    RANGE,
    Episode,
    HelpPlan,
    scale_of,
    trimmed,
)
from hwnas_sdk.predictors.neural.help_net import HelpNet, Weights
from hwnas_sdk.predictors.neural.known_devices import (
    KnownDevices,
    checkpoint_identity,
    reference_values,
    vector_of,
)
from hwnas_sdk.predictors.neural.latency_net import LatencyNet, one_hot
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.references import reference_genotypes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK: Final = 4096


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
        mean = self.least + self.spread * (total - LOW) / RANGE
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

    default_plan: ClassVar[HelpPlan] = HelpPlan()

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
        torch_device: str = "cpu",
    ) -> Self:
        """Meta-train on known devices; see `TransferModel.fit` and `MetaPredictor.fit`."""
        chosen = plan or cls.default_plan
        references = reference_genotypes()
        cells, columns = checked_known(genotypes, known)
        data = KnownDevices.collect(cells, columns, references)
        data = data.to(chosen_torch_device(torch_device))
        with seeded(seed):
            net = HelpNet(len(references), chosen.step_size)
        steps = FitPlan(
            epochs=chosen.epochs,
            batch_size=chosen.n_query,
            learning_rate=chosen.learning_rate,
            clip_norm=5.0,
            seed=seed,
        )
        weights = [*net.base.parameters(), *net.hyper.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": weights},
            {"params": list(net.steps.values()), "lr": chosen.step_rate, "weight_decay": 0.0},
        ]
        episode = Episode(net, data, references, chosen, seed)
        fit(
            net, episode.loss, len(episode.query), steps, groups=groups,
            checkpoint=checkpoint,
            identity=checkpoint_identity(chosen, references, cells, columns),
            on_event=on_event, task="train help", torch_device=torch_device,
        )  # fmt: skip
        return cls(net, references, data.prior, chosen, seed)

    def adapt(
        self, genotypes: NDArray[np.integer], values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedHelp:
        """Tune to a device; see `TransferModel.adapt` and `MetaPredictor.adapt`."""
        cells, seen = checked_samples(genotypes, values)
        told = reference_values(self.prior, self.references, cells, seen, rel_sd)
        vector, *scale = vector_of(torch.from_numpy(told.astype(np.float32))[None])
        if self.plan.strict:
            tuned_on, target = self.references, vector[0]
        else:
            tuned_on, target, *scale = self._published(cells, seen)
        hot, target = one_hot(tuned_on), LOW + RANGE * target
        mean, sd = self.net.modulation(vector[0])
        draws = []
        with seeded(self.seed):
            for _ in range(self.plan.n_draws):
                weights = self.net.modulated(mean + sd * torch.randn_like(sd))
                tuned = self.net.tuned(weights, hot, vector[0], target, self.plan.n_steps)
                draws.append({name: weight.detach() for name, weight in tuned.items()})
        least, spread = (float(part) for part in scale)
        return AdaptedHelp(self.net.base, tuple(draws), vector[0].detach(), least, spread)

    def _published(self, cells: Ints, values: Floats) -> tuple[Ints, Tensor, Tensor, Tensor]:
        """Ten networks beside the references, their values in [0, 1], and the scale."""
        told = set(map(tuple, self.references.tolist()))
        pool = np.flatnonzero([tuple(cell) not in told for cell in cells.tolist()])
        if len(pool) < N_SUPPORT:
            raise ModelError(
                f"{len(pool)} measured architectures beside the references, HELP as published "
                f"needs {N_SUPPORT}",
                hint="measure more, or use help",
            )
        kept = pool[trimmed(values[pool])]
        chosen = child_rng(self.seed, "help support").permutation(kept)[:N_SUPPORT]
        least, spread = scale_of(torch.from_numpy(values[kept].astype(np.float32)))
        target = torch.from_numpy(values[chosen].astype(np.float32))
        return cells[chosen], (target - least) / spread, least, spread

    def settings(self) -> dict[str, Any]:
        """Plain data for a card."""
        return {**asdict(self.plan), "references": self.references.tolist()}


class PaperHelp(HelpPredictor):
    """HELP with what its released code measures: see `HelpPlan.strict`."""

    default_plan = HelpPlan(strict=False)
