"""What is believed of every network on one device, learned from its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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

Values = NDArray[np.float64]

LEAST_SHARE = 0.2
"""A folded network keeps at least this share of the predicted unfolded latency or energy."""

MIN_ENERGIES = 2
"""Fewer measured energies than this say nothing of how it depends on the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One valid measurement as something to learn from."""

    architecture: Architecture
    folded: bool
    latency_ms: float
    rel_sd: float | None
    peak_memory_mib: float | None
    energy_mj: float | None = None

    @property
    def n_spared_edges(self) -> int:
        """Edges an unfolded network executes for nothing and this one does not have."""
        if not self.folded:
            return 0
        cells = executed_cells(np.array([self.architecture.genotype], dtype=np.int64))
        return int((cells == 0).sum())

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
            energy_mj=measurement.energy_mj,
        )


@dataclass(frozen=True)
class Beliefs:
    """Predicts objectives for whole populations.

    Attributes:
        space: the search space.
        folded: whether predictions are for the canonical live graph.
        latency, accuracy: fitted models.
        memory: fitted model, None without memory measurements.
        n_labels: measurements learned from.
        none_ms: what an edge without an operator costs an unfolded network, see `none_edge_ms`.
        energy: fitted model in mJ, None without energy measurements; none_mj as none_ms.
    """

    space: SearchSpace
    folded: bool
    latency: LatencyModel
    accuracy: AccuracyModel
    memory: MemoryModel | None
    n_labels: int
    none_ms: float = 0.0
    energy: LatencyModel | None = None
    none_mj: float = 0.0

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
        none_ms = none_edge_ms(labels)
        latency_ms = np.array(
            [label.latency_ms + none_ms * label.n_spared_edges for label in labels]
        )
        rel_sd = np.array([label.rel_sd or 0.0 for label in labels])
        weighed = [label for label in labels if label.peak_memory_mib is not None]
        memory = None
        if weighed:
            sizes = [
                _analytic_mib(space.layers(label.architecture, folded=label.folded))
                for label in weighed
            ]
            memory = MemoryModel.fit(sizes, [float(x.peak_memory_mib or 0.0) for x in weighed])
        energy, none_mj = _energy_model(labels, prior)
        return cls(
            space=space,
            folded=folded,
            latency=prior.adapt(features, latency_ms, rel_sd),
            accuracy=accuracy or AccuracyModel.shipped(),
            memory=memory,
            n_labels=len(labels),
            none_ms=none_ms,
            energy=energy,
            none_mj=none_mj,
        )

    def predict(self, genotypes: Genotypes, objectives: Sequence[str]) -> tuple[Values, Values]:
        """Predicted value and standard deviation of each objective.

        Shapes: genotypes (n, d); both results (n, len(objectives)). Units: those of the objective
        keys (error_pct, latency_ms, energy_mj, memory_mib).
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
            return self._predict_cost(genotypes, self.latency, self.none_ms)
        if objective == "energy" and self.energy is not None:
            return self._predict_cost(genotypes, self.energy, self.none_mj)
        if objective == "memory" and self.memory is not None:
            return self._predict_memory(genotypes, self.memory)
        reason = {
            "memory": "no memory was measured on this device",
            "energy": "no energy was measured on this device (`hwnas profile NAME --energy`)",
        }.get(objective, "it is unknown")
        raise ConfigError(
            f"cannot predict objective {objective!r}: {reason}",
            hint="objectives: error, latency, memory (energy where the board has a sensor)",
        )

    def _predict_cost(
        self, genotypes: Genotypes, model: LatencyModel, none_cost: float
    ) -> tuple[Values, Values]:
        """Latency or energy of the executed networks."""
        prediction = model.predict(_features(genotypes, folded=self.folded))
        mean = prediction.mean
        if self.folded:
            mean = mean - none_cost * (executed_cells(genotypes) == 0).sum(axis=1)
        # A linear model can leave the possible; nothing runs in less than nothing.
        return np.maximum(mean, LEAST_SHARE * prediction.mean), prediction.sd

    def _predict_memory(self, genotypes: Genotypes, memory: MemoryModel) -> tuple[Values, Values]:
        sizes = [_cell_mib(self.space, tuple(cell), self.folded) for cell in genotypes.tolist()]
        mean = memory.predict(sizes)
        return mean, np.full(len(mean), memory.residual_sd_mib)

    def provenance(self) -> Mapping[str, str]:
        """Where each predicted value comes from, for reports."""
        card = self.accuracy.card
        known = "accuracies given by the caller"
        if card is not None:
            known = f"{card.data.get('table', card.name)} ({card.data.get('attribution', '')})"
        energy = {
            "energy_mj": f"predicted from {self.energy.n_samples} energies of this device and the "
            "latency prior, as energy follows the same layers"
        } if self.energy is not None else {}  # fmt: skip
        return {
            "error_pct": f"predicted by a model trained on {known}; not measured on this board",
            "latency_ms": f"predicted from {self.n_labels} measurements on this device and a prior "
            "fitted on other devices",
            **energy,
        }


@lru_cache(maxsize=65_536)
def _cell_mib(space: SearchSpace, genotype: tuple[int, ...], folded: bool) -> float:  # noqa: FBT001
    """Analytic size of a network; building its graph takes a millisecond, so it is done once."""
    arch = Architecture(space.name, genotype)
    return _analytic_mib(space.layers(arch, folded=folded and not space.is_dead(arch)))


def _analytic_mib(graph: LayerGraph) -> float:
    return float(analytic_mib(graph.n_params, graph.peak_activation_elements))


def _energy_model(
    labels: Sequence[Label], prior: LatencyPrior
) -> tuple[LatencyModel | None, float]:
    """Model of the energies among `labels`, and what an empty edge costs; None without any.

    The prior is about relative costs of a cell's operators and knows no unit: energy is power
    times latency, layer by layer, so it starts from the same place.
    """
    known = [label for label in labels if label.energy_mj is not None]
    if len(known) < MIN_ENERGIES:
        return None, 0.0
    none_mj = _none_edge_cost(known, lambda label: float(label.energy_mj or 0.0))
    features = np.concatenate([features_of([label], folded=label.folded) for label in known])
    energies = np.array([float(x.energy_mj or 0.0) + none_mj * x.n_spared_edges for x in known])
    return prior.adapt(features, energies), none_mj


def none_edge_ms(labels: Sequence[Label]) -> float:
    """What one ``none`` edge costs an unfolded network on this device, in ms.

    The prior knows unfolded networks only, and counts x * 0 and its addition as part of every
    cell. The difference between both forms of one network, per spared edge, says what to take off
    for folded ones: the median over architectures with both labels whose dead edges are all
    ``none``; 0 without one.
    """
    return _none_edge_cost(labels, lambda label: label.latency_ms)


def _none_edge_cost(labels: Sequence[Label], value: Callable[[Label], float]) -> float:
    unfolded = {x.architecture: value(x) for x in labels if not x.folded}
    costs = [
        (unfolded[x.architecture] - value(x)) / x.n_spared_edges
        for x in labels
        if x.folded and x.architecture in unfolded and has_only_none_dead(x.architecture)
    ]
    return max(0.0, float(np.median(costs))) if costs else 0.0


def has_only_none_dead(architecture: Architecture) -> bool:
    """Whether an architecture has ``none`` edges, and every other edge is live."""
    genes = np.array([architecture.genotype], dtype=np.int64)
    return bool((genes == 0).any() and np.array_equal(executed_cells(genes), genes))


def features_of(labels: Sequence[Label], *, folded: bool) -> Values:
    """Feature rows of labelled networks, shape (n, n_features)."""
    genotypes = np.array([label.architecture.genotype for label in labels], dtype=np.int64)
    return _features(genotypes, folded=folded)


def _features(genotypes: Genotypes, *, folded: bool) -> Values:
    """Features of the network that is executed.

    A folded network has no dead branches, so its features are those of the cell whose dead edges
    are ``none``; `none_edge_ms` then takes off what ``none`` costs an unfolded network.
    """
    return structural_features(executed_cells(genotypes) if folded else genotypes)


def executed_cells(genotypes: Genotypes) -> Genotypes:
    """Cells whose dead edges are set to ``none``, shape (n, 6)."""
    return np.where(live_edges(genotypes), genotypes, 0)
