"""Error of a trained cell, from its structure.

`AccuracyModel.fit` learns from a few labels with a Gaussian process; `AccuracyModel.shipped` is an
ensemble of small networks trained on the public CIFAR-10 accuracies. Both model -1 / error: the
difference between 6 and 7 % then counts far more than that between 60 and 70 %. Dead cells are
known to guess, so no model is asked about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, Tensors, load_model, save_model
from hwnas_sdk.predictors.encodings import live_edges
from hwnas_sdk.predictors.gaussian_process import BlockProcess
from hwnas_sdk.predictors.paths import path_blocks
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]

KIND: Final = "accuracy"
SCHEMA: Final = 1
SHIPPED: Final = "nb201_accuracy_cifar10"
DEAD_ERROR_PCT: Final = 90.0  # ten classes, one guess
_MIN_LABELS: Final = 5
_LEAST_ERROR_PCT: Final = 0.1


def to_target(error_pct: ArrayLike) -> Floats:
    """-1 / error, (n,) -> (n,); increases with the error."""
    target: Floats = -1.0 / np.maximum(np.asarray(error_pct, dtype=np.float64), _LEAST_ERROR_PCT)
    return target


class Regressor(Protocol):
    """Predicts the target of live cells from their feature blocks."""

    def predict(self, blocks: tuple[Floats, ...]) -> tuple[Floats, Floats]:
        """Mean and sd of the target, two (n,)."""
        ...


@dataclass(frozen=True)
class NetworkEnsemble:
    """Small fully connected networks with two outputs: mean and log variance of the target.

    `layers` holds (weights (members, in, out), bias (members, 1, out)); ReLU between layers.
    `shift` and `scale` undo the standardisation of the target; `widening` is the factor on the sd
    that makes intervals cover function families the networks never saw.
    """

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    shift: float
    scale: float
    widening: float = 1.0

    def predict(self, blocks: tuple[Floats, ...]) -> tuple[Floats, Floats]:
        """Mean over the members; their disagreement adds to the variance they predict."""
        x = np.concatenate(blocks, axis=1).astype(np.float32)[None]
        for i, (weights, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0.0) if i else x) @ weights + bias  # (members, n, out)
        means, log_variances = x[..., 0].astype(np.float64), x[..., 1].astype(np.float64)
        variance = np.exp(log_variances).mean(axis=0) + means.var(axis=0)
        sd = self.scale * self.widening * np.sqrt(variance)
        return self.shift + self.scale * means.mean(axis=0), sd

    def tensors(self) -> Tensors:
        """Weights by name, for a file."""
        named: Tensors = {"target": np.array([self.shift, self.scale, self.widening])}
        for i, (weights, bias) in enumerate(self.layers):
            named[f"layers.{i}.weight"], named[f"layers.{i}.bias"] = weights, bias
        return named

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> NetworkEnsemble:
        """Inverse of `tensors`."""
        n_layers = sum(name.endswith(".weight") for name in tensors)
        layers = tuple(
            (tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(n_layers)
        )
        shift, scale, widening = (float(value) for value in tensors["target"])
        return cls(layers, shift, scale, widening)


@dataclass(frozen=True)
class AccuracyModel:
    """Predicts error_pct; `card` says what a shipped model learned from (None: the caller's).

    `dead_error_pct` is the error of guessing, which no architecture exceeds.
    """

    regressor: Regressor
    card: Card | None = None
    dead_error_pct: float = DEAD_ERROR_PCT

    @classmethod
    def fit(cls, genotypes: NDArray[np.integer], error_pct: ArrayLike) -> AccuracyModel:
        """Gaussian process on labelled cells; dead cells and NaN labels are left out.

        Shapes: genotypes (n, 6), error_pct (n,) in percent.
        Raises: ModelError with fewer than 5 usable labels.
        """
        genes = np.asarray(genotypes, dtype=np.int64)
        error = np.asarray(error_pct, dtype=np.float64)
        if genes.ndim != 2 or error.shape != (len(genes),):
            raise ModelError(f"{error.shape} errors do not label genotypes of {genes.shape}")
        kept = live_edges(genes).any(axis=1) & np.isfinite(error)
        if kept.sum() < _MIN_LABELS:
            raise ModelError(
                f"an accuracy model needs {_MIN_LABELS} labelled live cells, got {kept.sum()}",
                hint="use the shipped model",
            )
        return cls(BlockProcess.fit(path_blocks(genes[kept]), to_target(error[kept])))

    def predict(self, genotypes: NDArray[np.integer]) -> Prediction:
        """Error of cells and its standard deviation, label noise included.

        Shapes: (n, 6) -> two (n,). Unit: percent.
        """
        genes = np.asarray(genotypes, dtype=np.int64)
        live = live_edges(genes).any(axis=1)
        mean, sd = np.full(len(genes), self.dead_error_pct), np.zeros(len(genes))
        if live.any():
            target, target_sd = self.regressor.predict(path_blocks(genes[live]))
            error = -1.0 / np.minimum(target, -1.0 / self.dead_error_pct)
            mean[live] = error
            sd[live] = np.minimum(target_sd * error**2, self.dead_error_pct)  # d(error) / d(target)
        return Prediction(mean, sd)

    def save(self, path: Path, *, data: Mapping[str, Any], metrics: Mapping[str, Any]) -> Card:
        """Write an ensemble and its card.

        Raises: ModelError for a Gaussian process: its file would be the labels themselves.
        """
        if not isinstance(self.regressor, NetworkEnsemble):
            raise ModelError("only a network ensemble has weights; keep the labels instead")
        card = Card(
            name=path.stem,
            kind=KIND,
            space="nasbench201",
            schema=SCHEMA,
            data=data,
            metrics=metrics,
            settings=(
                {}
                if self.dead_error_pct == DEAD_ERROR_PCT
                else {"dead_error_pct": self.dead_error_pct}
            ),
        )
        return save_model(path, self.regressor.tensors(), card)

    @classmethod
    def load(cls, path: Path) -> AccuracyModel:
        """Read weights. Raises: ModelError for another kind, space, schema or a damaged file."""
        tensors, card = load_model(path, kind=KIND, space="nasbench201", schema=SCHEMA)
        try:
            dead_error_pct = float(card.settings.get("dead_error_pct", DEAD_ERROR_PCT))
            return cls(NetworkEnsemble.from_tensors(tensors), card, dead_error_pct)
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelError(f"{path.name}: incomplete accuracy weights: {exc}") from exc

    @classmethod
    def shipped(cls) -> AccuracyModel:
        """The packaged model of NAS-Bench-201 on CIFAR-10 (200 epochs)."""
        return cls.load(WEIGHTS_FOLDER / f"{SHIPPED}.safetensors")
