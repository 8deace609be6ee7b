"""MetaPredictor: one network for every device, told which device by ten of its latencies.

Differs from the paper (MODNAS): the target is z = (y - min) / (max - min) of the device's own
reference values, because the device vector holds no absolute speed (``target="raw"`` trains on the
paper's milliseconds); all devices of a step share one pass of the encoder; devices are mixed, as
thirteen are few; and it trains in minutes instead of 500,000 steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, load_model, save_model
from hwnas_sdk.predictors.neural.fit import FitPlan, fit
from hwnas_sdk.predictors.neural.known_devices import (
    KnownDevices,
    checkpoint_identity,
    reference_values,
    vector_of,
)
from hwnas_sdk.predictors.neural.latency_net import LatencyNet, cell_net, one_hot
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.references import reference_genotypes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KIND: Final = "meta_predictor"
SCHEMA: Final = 1
SHIPPED: Final = "nb201_meta_predictor"
_CHUNK: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaPlan:
    """How to train; chosen on left-out training devices.

    Attributes:
        target: "reference" scales a device by its references, "raw" is the paper's.
        n_real, n_mixed: known and mixed devices of a step.
        threshold: error in z beyond which the loss grows linearly.
    """

    target: Literal["reference", "raw"] = "reference"
    epochs: int = 24
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    n_real: int = 4
    n_mixed: int = 4
    threshold: float = 0.05


@dataclass(frozen=True)
class AdaptedMeta:
    """The network for one device."""

    net: LatencyNet
    vector: Tensor  # (1, k)
    least: float
    spread: float

    def differentiable(self, architectures: Tensor) -> Tensor:
        """Predicted values of relaxed one-hot architectures, (n, 6, 5) -> (n,)."""
        value: Tensor = self.least + self.spread * self.net(architectures, self.vector)[0]
        return value

    def predict(self, genotypes: NDArray[np.integer]) -> Prediction:
        """Mean; the sd is NaN, the network states none. Shapes: (n, 6) -> two (n,)."""
        hot = one_hot(checked_cells(genotypes))
        with torch.no_grad():
            parts = [self.differentiable(part) for part in torch.split(hot, _CHUNK)]
        mean = torch.cat(parts).numpy().astype(np.float64)
        return Prediction(mean, np.full(len(mean), np.nan))


@dataclass(frozen=True)
class MetaPredictor:
    """A trained network, the references it was told devices by, and a prior that fills gaps."""

    net: LatencyNet
    references: Ints
    prior: LatencyPrior
    plan: MetaPlan

    @classmethod
    def fit(
        cls,
        genotypes: NDArray[np.integer],
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        plan: MetaPlan | None = None,
        references: Ints | None = None,
        checkpoint: Path | None = None,
        on_event: EventSink = ignore,
        torch_device: str = "cpu",
    ) -> MetaPredictor:
        """Train on known devices; see `TransferModel.fit`.

        `references` are the networks a device is told by, (k, 6), default the paper's ten; a
        `checkpoint` makes a killed training continue; `torch_device` is where it trains, and the
        trained network is on the CPU. It ends after a fixed number of epochs: what could judge it
        is a device left out of few, and every published figure is of this plan.
        """
        chosen = plan or MetaPlan()
        told_by = reference_genotypes() if references is None else references
        cells, columns = checked_known(genotypes, known)
        data = KnownDevices.collect(cells, columns, told_by)
        data = data.to(chosen_torch_device(torch_device))
        with seeded(seed):
            net = cell_net(len(told_by))
        steps = FitPlan(
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            weight_decay=chosen.weight_decay,
            clip_norm=5.0,
            seed=seed,
        )
        loss = _loss(net, data, chosen)
        fit(
            net, loss, len(data.genotypes), steps,
            checkpoint=checkpoint, identity=checkpoint_identity(chosen, told_by, cells, columns),
            on_event=on_event, task="train meta", torch_device=torch_device,
        )  # fmt: skip
        return cls(net, told_by, data.prior, chosen)

    def adapt(
        self, genotypes: NDArray[np.integer], values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedMeta:
        """Tell the network a device by its measurements; see `TransferModel.adapt`.

        References among them count as measured, the others are predicted by the Bayesian prior.
        Raises: ModelError for values that are not positive and finite, or none.
        """
        cells, seen = checked_samples(genotypes, values)
        told = reference_values(self.prior, self.references, cells, seen, rel_sd)
        vector, least, spread = vector_of(torch.from_numpy(told.astype(np.float32))[None])
        if self.plan.target == "raw":
            return AdaptedMeta(self.net, vector, 0.0, 1.0)
        return AdaptedMeta(self.net, vector, float(least), float(spread))

    # --- files ----------------------------------------------------------------------------------

    def save(
        self, path: Path, *, data: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
    ) -> Card:
        """Write weights and card, and the prior beside them (``NAME-prior``); returns the card."""
        self.prior.save(_prior_path(path), data=data)
        tensors = {name: value.numpy() for name, value in self.net.state_dict().items()}
        card = Card(
            name=path.stem,
            kind=KIND,
            space="nasbench201",
            schema=SCHEMA,
            data=data,
            metrics=metrics or {},
            settings={"plan": asdict(self.plan), "references": self.references.tolist()},
        )
        return save_model(path, tensors, card)

    @classmethod
    def load(cls, path: Path) -> MetaPredictor:
        """Read a model. Raises: ModelError for another kind, space, schema or a damaged file."""
        tensors, card = load_model(path, kind=KIND, space="nasbench201", schema=SCHEMA)
        try:
            references = np.array(card.settings["references"], dtype=np.int64)
            net = cell_net(len(references))
            net.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
            plan = MetaPlan(**card.settings["plan"])
        except (KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise ModelError(f"{path.name}: incomplete meta predictor: {exc}") from exc
        net.eval()
        return cls(net, references, LatencyPrior.load(_prior_path(path)), plan)

    @classmethod
    def shipped(cls) -> MetaPredictor:
        """The packaged network for NAS-Bench-201, trained on the 13 public training devices."""
        return cls.load(WEIGHTS_FOLDER / f"{SHIPPED}.safetensors")


def _prior_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-prior.safetensors")


def _loss(net: LatencyNet, data: KnownDevices, plan: MetaPlan) -> Any:
    hot = one_hot(data.genotypes).to(data.columns.device)

    def loss(rows: Tensor) -> Tensor:
        real = torch.randperm(len(data), device=rows.device)[: plan.n_real]
        columns, told = data.columns[real][:, rows], data.references[real]
        if plan.target == "raw":
            unit = data.medians[real][:, None]
            vector, _, _ = vector_of(told)
            target = columns * unit
        else:
            if plan.n_mixed and len(data) > 1:
                more, more_told = data.mixed(rows, plan.n_mixed)
                columns, told = torch.cat([columns, more]), torch.cat([told, more_told])
            vector, least, spread = vector_of(told)
            target = (columns - least) / spread
        there = torch.isfinite(target)
        if not there.any():
            raise ModelError("no known device was measured on these architectures")
        predicted = net(hot[rows], vector)[there]
        if plan.target == "raw":
            return functional.mse_loss(predicted, target[there])
        return functional.smooth_l1_loss(predicted, target[there], beta=plan.threshold)

    return loss
