"""Measuring a device until its predictions are precise enough: `hwnas profile NAME --active`.

Which network comes next is derived from the run's stored measurements alone, so a killed process
that is started again chooses as if it had never stopped. A network whose attempts are not used up
is taken before a new one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import Event
from hwnas_sdk.core.types import Architecture, Measurement
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.predictors.active import (
    N_POOL,
    N_START,
    candidate_rows,
    half_width_pct,
    next_reference,
)
from hwnas_sdk.predictors.bayes import LatencyModel, LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.predictors.metrics import Z_90
from hwnas_sdk.predictors.references import REFERENCE_SETS
from hwnas_sdk.spaces import Genotypes, SearchSpace
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows.measure import MAX_ATTEMPTS, Measurer
from hwnas_sdk.workflows.profile import MIN_VALID, reference_targets

Stopped = Literal["precision", "max_networks", "no_network_left", "no_valid"]

_UNFOLDED: Final = "/unfolded"
_LEAST_MS: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivePlan:
    """When an active profile has measured enough.

    Attributes:
        precision_pct: stop when the median relative half-width of the 90 % intervals over the
            space is at most this.
        max_networks: stop after this many networks (the folded twins not counted).

    Raises: ConfigError for a precision that is not positive or a budget below `N_START`.
    """

    precision_pct: float = 10.0
    max_networks: int = 20

    def __post_init__(self) -> None:
        """Check the limits."""
        if not self.precision_pct > 0:
            raise ConfigError(
                f"a precision of {self.precision_pct:g} % is never reached",
                code="bad_precision",
                hint="give percent above 0, e.g. 10",
            )
        if self.max_networks < N_START:
            raise ConfigError(
                f"an active profile starts with {N_START} networks, allowed are "
                f"{self.max_networks}",
                code="bad_budget",
                hint=f"allow at least {N_START}",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, part of the run's identity."""
        return {"precision_pct": self.precision_pct, "max_networks": self.max_networks}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveResult:
    """What was measured and why it ended.

    Attributes:
        archs: official strings in the order of measuring; measurements run parallel.
        precision_pct: median relative half-width of the 90 % intervals over the space; None with
            fewer valid measurements than a profile needs.
        noise_pct: the share of it that no further network takes away: the same half-width from
            the estimated scatter of one measurement alone.
        stopped: why it ended.
    """

    archs: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    precision_pct: float | None
    noise_pct: float | None
    stopped: Stopped

    def summary(self) -> dict[str, Any]:
        """What a profile keeps of it."""
        return {
            "n_networks": len(self.archs),
            "reached_pct": self.precision_pct,
            "noise_pct": self.noise_pct,
            "stopped": self.stopped,
        }


@dataclass
class ActiveProfiler:
    """Measures the first references, then chooses one network after the other.

    Args:
        space: NAS-Bench-201, the only space a prior ships for.
        measurer: measures inside the profile's run.
        cache: the artifact cache.
        plan: when to stop.
        batch: inputs per inference.
        pairs: measure some networks folded as well, see `profile.reference_targets`.
        prior: what is known before; None takes the shipped one.
    """

    space: SearchSpace
    measurer: Measurer
    cache: ArtifactCache
    plan: ActivePlan
    batch: int = 1
    pairs: bool = True
    prior: LatencyPrior | None = None

    def run(self) -> ActiveResult:
        """Measure what the plan asks for and is not done yet.

        Raises: DeviceError; what was finished before is stored.
        """
        start = [self.space.decode(arch) for arch in REFERENCE_SETS["ours-10"][:N_START]]
        self._measure(start)
        while True:
            tried = self._settled()
            model = self._posterior(tried)
            precision_pct = self._precision_pct(tried, model)
            self._tell(len(tried), precision_pct)
            stopped = self._enough(tried, precision_pct)
            chosen = None
            if model is not None and stopped is None:
                chosen = self._unsettled(tried) or self._next(model, tried)
            if chosen is None:
                break
            self._measure([chosen])
        if self.pairs:
            self._measure([a for a, m in tried if m.status == "valid"], pairs=True)
        return ActiveResult(
            archs=tuple(self.space.encode(a) for a, _ in tried),
            measurements=tuple(m for _, m in tried),
            precision_pct=precision_pct,
            noise_pct=None if model is None else self._noise_pct(model),
            stopped=stopped or ("no_valid" if model is None else "no_network_left"),
        )

    # --- what is known --------------------------------------------------------------------------

    def _settled(self) -> list[tuple[Architecture, Measurement]]:
        """Networks with a valid measurement or no attempt left, in the order of measuring."""
        order: dict[str, None] = {}
        for m in self.measurer.store.measurements(run_id=self.measurer.run_id):
            if m.item.endswith(_UNFOLDED):
                order[m.item] = None
        results = self.measurer.results(order)
        return [
            (Architecture.of_id(m.arch_id), m)
            for m in results.values()
            if m.status == "valid" or m.attempt >= MAX_ATTEMPTS
        ]

    def _unsettled(self, tried: Sequence[tuple[Architecture, Measurement]]) -> Architecture | None:
        """A network that was begun and is not done: only a killed process leaves one."""
        done = {m.item for _, m in tried}
        for m in self.measurer.store.measurements(run_id=self.measurer.run_id):
            if m.item.endswith(_UNFOLDED) and m.item not in done:
                return Architecture.of_id(m.arch_id)
        return None

    def _posterior(self, tried: Sequence[tuple[Architecture, Measurement]]) -> LatencyModel | None:
        """The prior given the valid measurements; None without one."""
        valid = [(a, m) for a, m in tried if m.status == "valid"]
        if not valid:
            return None
        cells = np.array([a.genotype for a, _ in valid], dtype=np.int64)
        latency_ms = np.array([float(m.latency_ms or 0.0) for _, m in valid])
        ci95_ms = np.array([m.ci95_ms or 0.0 for _, m in valid])
        rel_sd = ci95_ms / 1.96 / latency_ms
        return self._prior.adapt(structural_features(cells), latency_ms, rel_sd)

    def _enough(
        self, tried: Sequence[tuple[Architecture, Measurement]], precision_pct: float | None
    ) -> Stopped | None:
        """Why to stop, or None."""
        if precision_pct is not None and precision_pct <= self.plan.precision_pct:
            return "precision"
        return "max_networks" if len(tried) >= self.plan.max_networks else None

    def _precision_pct(
        self, tried: Sequence[tuple[Architecture, Measurement]], model: LatencyModel | None
    ) -> float | None:
        if model is None or sum(m.status == "valid" for _, m in tried) < MIN_VALID:
            return None
        width_pct = half_width_pct(model, self._features[self._candidates[:N_POOL]])
        return width_pct if np.isfinite(width_pct) else None

    def _noise_pct(self, model: LatencyModel) -> float:
        """Relative half-width that the noise alone gives a typical cell."""
        features = self._features[self._candidates[:N_POOL]]
        typical = model.prior.typical(model.prior.standardise(features)) * model.scale_ms
        share = typical / np.maximum(model.predict(features).mean, _LEAST_MS)
        return float(100.0 * Z_90 * model.noise_rel * np.median(share))

    # --- what comes next ------------------------------------------------------------------------

    def _next(
        self, model: LatencyModel, tried: Sequence[tuple[Architecture, Measurement]]
    ) -> Architecture | None:
        row_of = self._row_of
        taken = [row_of[a.genotype] for a, _ in tried]
        row = next_reference(model, self._features, self._candidates, taken=taken)
        return None if row is None else self.space.architecture(self._genotypes[row])

    def _measure(self, archs: Sequence[Architecture], *, pairs: bool = False) -> None:
        name = self.measurer.session.spec.name
        targets, folded = reference_targets(
            self.space,
            [self.space.encode(a) for a in archs],
            cache=self.cache,
            batch=self.batch,
            pairs=pairs,
        )
        self.measurer.measure([*targets, *folded], task=f"profile {name}")

    def _tell(self, n_tried: int, precision_pct: float | None) -> None:
        reached = "unknown" if precision_pct is None else f"{precision_pct:.1f} %"
        self.measurer.on_event(
            Event(
                "active profile",
                n_tried,
                self.plan.max_networks,
                f"precision {reached}, wanted {self.plan.precision_pct:g} %",
            )
        )

    # --- the space ------------------------------------------------------------------------------

    @cached_property
    def _genotypes(self) -> Genotypes:
        return self._nasbench201.all_genotypes()

    @property
    def _nasbench201(self) -> NasBench201:
        if not isinstance(self.space, NasBench201):
            raise ConfigError(f"no shipped predictors for space {self.space.name!r}")
        return self.space

    @cached_property
    def _row_of(self) -> dict[tuple[int, ...], int]:
        return {tuple(cell): row for row, cell in enumerate(self._genotypes.tolist())}

    @cached_property
    def _features(self) -> NDArray[np.float64]:
        return structural_features(self._genotypes)

    @cached_property
    def _candidates(self) -> NDArray[np.int64]:
        return candidate_rows(np.asarray(live_edges(self._genotypes)).any(axis=1).astype(bool))

    @cached_property
    def _prior(self) -> LatencyPrior:
        return self.prior or LatencyPrior.shipped()
