"""What is believed of every network on one device, learned from its measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.types import Architecture, Measurement
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyModel, LatencyPrior
from hwnas_sdk.predictors.encodings import N_FEATURES, live_edges, structural_features
from hwnas_sdk.predictors.memory import MemoryModel, analytic_mib
from hwnas_sdk.spaces import Genotypes, SearchSpace

if TYPE_CHECKING:
    from hwnas_sdk.predictors.card import Card

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One valid measurement as something to learn from."""

    architecture: Architecture
    folded: bool
    latency_ms: float
    rel_sd: float | None
    peak_memory_mib: float | None

    @classmethod
    def of(cls, architecture: Architecture, measurement: Measurement, *, folded: bool) -> Label:
        """Label of a valid measurement; its relative sd comes from the 95 % interval."""
        assert measurement.latency_ms is not None
        ci = measurement.ci95_ms
        return cls(
            architecture=architecture,
            folded=folded,
            latency_ms=measurement.latency_ms,
            rel_sd=None if ci is None else ci / 1.96 / measurement.latency_ms,
            peak_memory_mib=measurement.peak_memory_mib,
        )


@dataclass(frozen=True)
class Beliefs:
    """Predicts objectives for whole populations.

    Attributes:
        space: the search space.
        folded: whether predictions are for the canonical live graph.
        latency, accuracy: fitted models.
        memory: fitted model, None without memory measurements.
    """

    space: SearchSpace
    folded: bool
    latency: LatencyModel
    accuracy: AccuracyModel
    memory: MemoryModel | None
    n_labels: int

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        labels: Sequence[Label],
        *,
        folded: bool,
        prior: LatencyPrior | None = None,
        accuracy: AccuracyModel | None = None,
    ) -> Beliefs:
        """Adapt the shipped prior to `labels` (none: the prior's mean device).

        Raises: ConfigError for a space no prior ships for; ModelError for damaged weights.
        """
        if space.name != "nasbench201":
            raise ConfigError(f"no shipped predictors for space {space.name!r}")
        prior = prior or LatencyPrior.shipped()
        features = np.concatenate(
            [features_of([label], folded=label.folded) for label in labels]
            or [np.empty((0, N_FEATURES))]
        )
        latency_ms = np.array([label.latency_ms for label in labels])
        rel_sd = np.array([label.rel_sd or 0.0 for label in labels])
        weighed = [label for label in labels if label.peak_memory_mib is not None]
        memory = None
        if weighed:
            sizes = [
                _analytic_mib(space.layers(label.architecture, folded=label.folded))
                for label in weighed
            ]
            memory = MemoryModel.fit(sizes, [float(x.peak_memory_mib or 0.0) for x in weighed])
        return cls(
            space=space,
            folded=folded,
            latency=prior.adapt(features, latency_ms, rel_sd),
            accuracy=accuracy or AccuracyModel.shipped(),
            memory=memory,
            n_labels=len(labels),
        )

    def predict(self, genotypes: Genotypes, objectives: Sequence[str]) -> tuple[Values, Values]:
        """Predicted value and standard deviation of each objective.

        Shapes: genotypes (n, d); both results (n, len(objectives)). Units: those of the objective
        keys (error_pct, latency_ms, memory_mib).
        Raises: ConfigError for an objective nothing is known about.
        """
        means, sds = [], []
        for objective in objectives:
            mean, sd = self._predict_one(genotypes, objective)
            means.append(mean)
            sds.append(sd)
        return np.column_stack(means), np.column_stack(sds)

    def _predict_one(self, genotypes: Genotypes, objective: str) -> tuple[Values, Values]:
        if objective == "error":
            prediction = self.accuracy.predict(genotypes)
            return prediction.mean, prediction.sd
        if objective == "latency":
            prediction = self.latency.predict(_features(genotypes, folded=self.folded))
            return prediction.mean, prediction.sd
        if objective == "memory" and self.memory is not None:
            return self._predict_memory(genotypes, self.memory)
        reason = {
            "memory": "no memory was measured on this device",
            "energy": "no energy was measured on this device",
        }.get(objective, "it is unknown")
        raise ConfigError(
            f"cannot predict objective {objective!r}: {reason}",
            hint="objectives: error, latency, memory (energy where the board has a sensor)",
        )

    def _predict_memory(self, genotypes: Genotypes, memory: MemoryModel) -> tuple[Values, Values]:
        # Building graphs is slow, so each distinct cell is built once.
        distinct, inverse = np.unique(genotypes, axis=0, return_inverse=True)
        sizes = [
            _analytic_mib(self.space.layers(a, folded=self.folded and not self.space.is_dead(a)))
            for a in map(self.space.architecture, distinct)
        ]
        mean = memory.predict(sizes)[inverse.reshape(-1)]
        return mean, np.full(len(mean), memory.residual_sd_mib)

    def provenance(self) -> Mapping[str, str]:
        """Where each predicted value comes from, for reports."""
        card: Card | None = self.accuracy.card
        known = card.data if card is not None else "accuracies given by the caller"
        return {
            "error_pct": f"predicted by a model trained on {known}; not measured on this board",
            "latency_ms": f"predicted from {self.n_labels} measurements on this device and a prior "
            "fitted on other devices",
        }


def _analytic_mib(graph: LayerGraph) -> float:
    return float(analytic_mib(graph.n_params, graph.peak_activation_elements))


def features_of(labels: Sequence[Label], *, folded: bool) -> Values:
    """Feature rows of labelled networks, shape (n, n_features)."""
    genotypes = np.array([label.architecture.genotype for label in labels], dtype=np.int64)
    return _features(genotypes, folded=folded)


def _features(genotypes: Genotypes, *, folded: bool) -> Values:
    """Features of the network that is executed.

    A folded network has no dead branches, so its features are those of the cell whose dead edges
    are ``none``. What ``none`` itself costs an unfolded network stays in the model's constant:
    folded cells with many of them run a little faster than predicted until measured labels of
    folded networks have corrected it.
    """
    return structural_features(executed_cells(genotypes) if folded else genotypes)


def executed_cells(genotypes: Genotypes) -> Genotypes:
    """Cells whose dead edges are set to ``none``, shape (n, 6)."""
    return np.where(live_edges(genotypes), genotypes, 0)
