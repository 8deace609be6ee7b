"""`LatencyPrior` as a transfer model: genotypes in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]
Genotypes = NDArray[np.integer]


@dataclass(frozen=True)
class AdaptedBayes:
    """The posterior of one device."""

    posterior: LatencyModel

    @property
    def noise_rel(self) -> float:
        """Estimated relative noise of one measurement."""
        return self.posterior.noise_rel

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean and sd of a measured value, noise included. Shapes: (n, 6) -> two (n,)."""
        return self.posterior.predict(structural_features(checked_cells(genotypes)))


@dataclass(frozen=True)
class BayesModel:
    """Hierarchical Bayesian transfer on structural features."""

    prior: LatencyPrior

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
    ) -> Self:
        """Fit the prior; nothing is random. Raises: as `LatencyPrior.fit`."""
        del seed, on_event
        cells, columns = checked_known(genotypes, known)
        return cls(LatencyPrior.fit(structural_features(cells), columns))

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedBayes:
        """Condition on a device's values. Raises: as `LatencyPrior.adapt`."""
        cells, y = checked_samples(genotypes, values, at_least=0)
        return AdaptedBayes(self.prior.adapt(structural_features(cells), y, rel_sd))
