"""The Bayesian transfer model and linear transfer, mixed with a weight learned on known devices.

Each known device is left out in turn and predicted by both from ten of its values; the weight is
the one with the least squared relative error over all of them. Where no known device was measured
on an architecture, the Bayesian model answers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors._samples import checked_known, checked_samples
from hwnas_sdk.predictors.baselines import Formula, LinearTransfer
from hwnas_sdk.predictors.bayes_transfer import AdaptedBayes, BayesModel
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.references import d_optimal_references

Floats = NDArray[np.float64]
Genotypes = NDArray[np.integer]

_LEAST_DEVICES: Final = 3  # with fewer, leaving one out says nothing
_MOST_ROWS: Final = 3000  # architectures the weight is learned on
_N_SAMPLES: Final = 10
_N_RANDOM: Final = 2  # reference sets beside the designed one
_LARGEST_ERROR: Final = 1.0  # relative; a single one beyond it must not decide


@dataclass(frozen=True)
class AdaptedStack:
    """Both models of one device."""

    bayes: AdaptedBayes
    linear: Formula | None
    weight: float

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mixed mean and the Bayesian model's sd. Shapes: (n, 6) -> two (n,)."""
        mean, sd = self.bayes.predict(genotypes)
        if self.linear is not None:
            other = self.linear.predict(genotypes).mean
            mixed = (1.0 - self.weight) * mean + self.weight * other
            mean = np.where(np.isfinite(other), mixed, mean)
        return Prediction(mean, sd)


@dataclass(frozen=True)
class StackedModel:
    """`weight` is the share of linear transfer, in [0, 1]."""

    bayes: BayesModel
    linear: LinearTransfer
    weight: float

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
    ) -> Self:
        """Fit both on all known devices, and the weight. Raises: as both."""
        cells, columns = checked_known(genotypes, known)
        return cls(
            BayesModel.fit(cells, columns),
            LinearTransfer.fit(cells, columns),
            learned_weight(cells, columns, seed=seed, on_event=on_event),
        )

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedStack:
        """Condition both on a device's values. Raises: as `LatencyPrior.adapt`."""
        cells, y = checked_samples(genotypes, values, at_least=0)
        try:
            linear = self.linear.adapt(cells, y) if len(y) else None
        except ModelError:  # no known device was measured on all of them
            linear = None
        return AdaptedStack(self.bayes.adapt(cells, y, rel_sd=rel_sd), linear, self.weight)


def learned_weight(
    cells: NDArray[np.int64],
    columns: Mapping[str, Floats],
    *,
    seed: int,
    on_event: EventSink = ignore,
) -> float:
    """Share of linear transfer with the least error on known devices left out in turn."""
    if len(columns) < _LEAST_DEVICES:
        return 0.0
    rng = child_rng(seed, "stack")
    complete = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    rows = np.flatnonzero(complete & live_edges(cells).any(axis=1))
    if len(rows) <= _N_SAMPLES:
        return 0.0
    rows = np.sort(rng.permutation(rows)[:_MOST_ROWS])
    genes, features = cells[rows], structural_features(cells[rows])
    numerator = denominator = 0.0
    for done, left_out in enumerate(columns, start=1):
        others = {name: values[rows] for name, values in columns.items() if name != left_out}
        bayes, linear = BayesModel.fit(genes, others), LinearTransfer.fit(genes, others)
        truth = columns[left_out][rows]
        told = [d_optimal_references(bayes.prior, features, _N_SAMPLES)]
        told += [rng.choice(len(rows), _N_SAMPLES, replace=False) for _ in range(_N_RANDOM)]
        for seen in told:
            one, two = (
                np.clip(
                    model.adapt(genes[seen], truth[seen]).predict(genes).mean / truth - 1.0,
                    -_LARGEST_ERROR,
                    _LARGEST_ERROR,
                )
                for model in (bayes, linear)
            )
            # |one + w (two - one)|^2 is least at w = numerator / denominator.
            numerator -= float(one @ (two - one))
            denominator += float((two - one) @ (two - one))
        on_event(Event("train stack", done, len(columns), f"left out {left_out}"))
    return float(np.clip(numerator / denominator, 0.0, 1.0)) if denominator > 0 else 0.0
