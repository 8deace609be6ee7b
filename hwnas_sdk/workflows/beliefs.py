"""What is believed of every network on one device, learned from its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.types import OBJECTIVES, Architecture, Measurement
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import N_FEATURES, executed_cells, structural_features
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.predictors.memory import MemoryModel, analytic_mib
from hwnas_sdk.predictors.surprise import surprise
from hwnas_sdk.spaces import Genotypes, SearchSpace

Values = NDArray[np.float64]

SURPRISING = 0.01
"""Below this probability the user is warned that the device is unlike the known ones."""

MIN_ENERGIES = 5
"""With fewer measured energies none is predicted."""

LEAST_SHARE = 0.2
"""A folded network keeps at least this share of the predicted unfolded latency."""


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
        energy, n_energy, none_mj: the same for energy; `energy` is None with fewer than
            `MIN_ENERGIES` measured ones.
        surprise: probability that a device like the known ones has references at least as odd as
            these, None without measurements; below `SURPRISING` predictions deserve less trust.
        source: where the latencies come from, if not from this device.
        scale_log_sd: doubt about the level of all latencies together.
    """

    space: SearchSpace
    folded: bool
    latency: LatencyModel
    accuracy: AccuracyModel
    memory: MemoryModel | None
    n_labels: int
    none_ms: float = 0.0
    energy: LatencyModel | None = None
    n_energy: int = 0
    none_mj: float = 0.0
    surprise: float | None = None
    source: str = ""
    scale_log_sd: float = 0.0

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
        energy, n_energy, none_mj = _fit_energy(prior, labels)
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
            none_ms=none_ms,
            energy=energy,
            n_energy=n_energy,
            none_mj=none_mj,
            surprise=surprise(prior, features, latency_ms) if labels else None,
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
            mean, sd = self._predict_cost(genotypes, self.latency, self.none_ms)
            return mean, np.hypot(sd, self.scale_log_sd * mean)
        if objective == "energy" and self.energy is not None:
            return self._predict_cost(genotypes, self.energy, self.none_mj)
        if objective == "memory" and self.memory is not None:
            return self._predict_memory(genotypes, self.memory)
        reason = {
            "memory": "no memory was measured on this device",
            "energy": f"{self.n_energy} networks have a measured energy on this device, "
            f"{MIN_ENERGIES} are needed",
        }.get(objective, "it is unknown")
        hint = "objectives: error, latency, memory (energy where the board has a sensor)"
        if self.source and objective in OBJECTIVES:
            reason = "nothing was measured on this device, and another one says nothing of it"
            hint = "leave it out, or measure this one: `hwnas profile NAME` (--energy for energy)"
        raise ConfigError(f"cannot predict objective {objective!r}: {reason}", hint=hint)

    def _predict_cost(
        self, genotypes: Genotypes, model: LatencyModel, none_cost: float
    ) -> tuple[Values, Values]:
        """Latency or energy of the networks that are executed."""
        prediction = model.predict(_features(genotypes, folded=self.folded))
        mean = prediction.mean
        if self.folded:
            mean = mean - none_cost * (executed_cells(genotypes) == 0).sum(axis=1)
        # The difference of two predictions can leave the possible.
        return np.maximum(mean, LEAST_SHARE * prediction.mean), prediction.sd

    def _predict_memory(self, genotypes: Genotypes, memory: MemoryModel) -> tuple[Values, Values]:
        sizes = [
            network_mib(self.space, tuple(cell), folded=self.folded) for cell in genotypes.tolist()
        ]
        mean = memory.predict(sizes)
        return mean, np.full(len(mean), memory.residual_sd_mib)

    def provenance(self) -> Mapping[str, str]:
        """Where each predicted value comes from, for reports."""
        card = self.accuracy.card
        known = "accuracies given by the caller"
        if card is not None:
            known = f"{card.data.get('table', card.name)} ({card.data.get('attribution', '')})"
        latency = self.source or (
            f"predicted from {self.n_labels} measurements on this device and a prior fitted on "
            "other devices"
        )
        if self.surprise is not None and self.surprise < SURPRISING:
            latency += f"; {self.warning()}"
        words = {
            "error_pct": f"predicted by a model trained on {known}; not measured on this board",
            "latency_ms": latency,
        }
        if self.energy is not None:
            words["energy_mj"] = (
                f"predicted from {self.n_energy} measured energies on this device and a prior "
                "fitted on latencies of other devices"
            )
        return words

    def warning(self) -> str:
        """What to tell the user about a device unlike the known ones, "" for another."""
        if self.surprise is None or self.surprise >= SURPRISING:
            return ""
        return (
            f"its references look like no known device (probability {self.surprise:.3f}): rankings "
            "may be wrong until more networks are measured"
        )


def _fit_energy(
    prior: LatencyPrior, labels: Sequence[Label]
) -> tuple[LatencyModel | None, int, float]:
    """Model, number of energies, and what an empty edge costs in mJ.

    Energy of a network is power times time, and power varies less between networks than time
    does, so what is known of latencies is the prior of energies.
    """
    costed = [label for label in labels if label.energy_mj is not None and label.energy_mj > 0]
    if len(costed) < MIN_ENERGIES:
        return None, len(costed), 0.0
    none_mj = _none_edge(costed, lambda label: label.energy_mj or 0.0)
    features = np.concatenate([features_of([label], folded=label.folded) for label in costed])
    energies = [(label.energy_mj or 0.0) + none_mj * label.n_spared_edges for label in costed]
    return prior.adapt(features, np.array(energies)), len(costed), none_mj


@lru_cache(maxsize=65_536)
def network_mib(space: SearchSpace, genotype: tuple[int, ...], *, folded: bool) -> float:
    """Analytic size of a network; building its graph takes a millisecond, so it is done once."""
    arch = Architecture(space.name, genotype)
    return _analytic_mib(space.layers(arch, folded=folded and not space.is_dead(arch)))


def _analytic_mib(graph: LayerGraph) -> float:
    return float(analytic_mib(graph.n_params, graph.peak_activation_elements))


def none_edge_ms(labels: Sequence[Label]) -> float:
    """What one ``none`` edge costs an unfolded network on this device, in ms.

    The prior knows unfolded networks only, and counts x * 0 and its addition as part of every
    cell. The difference between both forms of one network, per spared edge, says what to take off
    for folded ones: the median over architectures with both labels whose dead edges are all
    ``none``; 0 without one.
    """
    return _none_edge(labels, lambda label: label.latency_ms)


def _none_edge(labels: Sequence[Label], cost: Callable[[Label], float]) -> float:
    unfolded = {x.architecture: cost(x) for x in labels if not x.folded}
    costs = [
        (unfolded[x.architecture] - cost(x)) / x.n_spared_edges
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
