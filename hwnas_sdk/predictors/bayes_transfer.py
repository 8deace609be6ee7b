"""The hierarchical Bayesian model (`bayes.py`) behind the interface of all transfer models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas_sdk.predictors.bayes import LatencyModel, LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.transfer import Floats, Genotypes


@dataclass(frozen=True)
class AdaptedBayes:
    """One device's latency model; see `LatencyModel`."""

    model: LatencyModel

    @property
    def noise_rel(self) -> float:
        """Estimated relative noise of one measurement."""
        return self.model.noise_rel

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean and sd; see `AdaptedModel.predict`."""
        return self.model.predict(structural_features(genotypes))


@dataclass(frozen=True)
class BayesTransfer:
    """What the known devices teach about any device; see `LatencyPrior`."""

    prior: LatencyPrior

    @classmethod
    def fit(
        cls, genotypes: Genotypes, known: Mapping[str, Floats], *, seed: int = 0
    ) -> BayesTransfer:
        """Fit the prior; nothing in it is random. See `TransferModel.fit`."""
        del seed
        return cls(LatencyPrior.fit(structural_features(genotypes), known))

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedBayes:
        """Condition on measurements; see `TransferModel.adapt`."""
        return AdaptedBayes(self.prior.adapt(structural_features(genotypes), values, rel_sd))
