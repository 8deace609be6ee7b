"""What `hwnas bench search` compares: the plan, what a method may see, and how it is judged.

Protocol (MODNAS on NAS-Bench-201): rows with an error of 90 % or more are dropped; errors and
latencies are scaled to [0, 1] by their extremes over all remaining rows of the device; of the
candidates' true values the non-dominated ones count; reference point (1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.references import PAPER_INDICES
from hwnas_sdk.workflows.entrants import METHODS as ENTRANTS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

# Device split of HELP (Lee et al., NeurIPS 2021), training and validation devices together, as
# MODNAS uses it.
HELP_TRAIN_DEVICES: Final = (
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3",
    "essential_ph_1", "samsung_s7", "titanx_1", "titanx_32", "titanx_256", "gold_6240",
)  # fmt: skip
HELP_UNSEEN_DEVICES: Final = ("titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss")
METHODS: Final = tuple(ENTRANTS)
REFERENCES: Final = ("ours", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBenchPlan:
    """What is compared, and what a method may use.

    Attributes:
        method: one of `METHODS`, see `entrants`.
        train_devices: devices whose whole columns are known.
        devices: unseen devices.
        train_accuracies: random architectures whose accuracy is known.
        samples: latencies of the unseen device that are known before the first round.
        candidates: architectures proposed per round.
        rounds: after each, the true values of its candidates become known.
        seeds: repetitions with other known accuracies and another search.
        references: which samples: "ours" (D-optimal) or "paper" (HELP's ten).
    """

    method: str = "auto"
    train_devices: tuple[str, ...] = HELP_TRAIN_DEVICES
    devices: tuple[str, ...] = HELP_UNSEEN_DEVICES
    train_accuracies: int = 100
    samples: int = 10
    candidates: int = 24
    rounds: int = 1
    seeds: int = 5
    references: str = "ours"

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out or would leak."""
        for name, value, known in (
            ("method", self.method, METHODS),
            ("reference set", self.references, REFERENCES),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}", hint=f"one of {', '.join(known)}")
        for name in ("train_accuracies", "samples", "candidates", "rounds", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.devices or not self.train_devices:
            raise ConfigError("no device", hint="name training devices and unseen devices")
        leaked = sorted(set(self.train_devices) & set(self.devices))
        if leaked:
            raise ConfigError(f"{', '.join(leaked)}: a training device cannot be unseen too")
        if self.references == "paper" and self.samples != len(PAPER_INDICES):
            raise ConfigError(f"the paper's reference set has {len(PAPER_INDICES)} networks")


class Oracle:
    """The true values of one device; counts the rows it reveals."""

    def __init__(self, error_pct: Floats, latency_ms: Floats) -> None:
        """Keep the columns, (n,) each."""
        self._error_pct = error_pct
        self._latency_ms = latency_ms
        self._errors_seen: set[int] = set()
        self._latencies_seen: set[int] = set()

    def errors(self, rows: Rows) -> Floats:
        """True errors of `rows` in percent."""
        self._errors_seen.update(rows.tolist())
        return self._error_pct[rows]

    def latencies(self, rows: Rows) -> Floats:
        """True latencies of `rows` in ms."""
        self._latencies_seen.update(rows.tolist())
        return self._latency_ms[rows]

    def recall(self, rows: Rows) -> tuple[NDArray[np.bool_], Floats]:
        """What was revealed already: which values, and these; the others are NaN, (n, 2) each."""
        known = np.column_stack(
            [np.isin(rows, list(seen)) for seen in (self._errors_seen, self._latencies_seen)]
        )
        values = np.column_stack([self._error_pct[rows], self._latency_ms[rows]])
        return known, np.where(known, values, np.nan)

    @property
    def revealed(self) -> dict[str, int]:
        """How many different rows of each column were revealed."""
        return {"accuracies": len(self._errors_seen), "latencies": len(self._latencies_seen)}


@dataclass(frozen=True)
class Judge:
    """Scaled truth of one device; only for judging.

    Shapes: scaled (n, 2), NaN outside the protocol; front (k, 2).
    """

    scaled: Floats
    front: Floats
    hv_true: float

    @classmethod
    def of(cls, error_pct: Floats, latency_ms: Floats, eligible: NDArray[np.bool_]) -> Judge:
        """Scale by the extremes of the eligible rows."""
        truth = np.column_stack([error_pct, latency_ms])
        truth[~eligible] = np.nan
        low, high = np.nanmin(truth, axis=0), np.nanmax(truth, axis=0)
        scaled = (truth - low) / np.where(high > low, high - low, 1.0)
        inside = scaled[eligible]
        front = inside[pareto.non_dominated_mask(inside)]
        return cls(scaled, front, pareto.hypervolume(front, np.ones(2)))

    def figures(self, rows: Rows) -> dict[str, float]:
        """Hypervolume and distances of the non-dominated part of `rows`."""
        points = self.scaled[rows]
        points = points[pareto.non_dominated_mask(points)]
        hv = pareto.hypervolume(points, np.ones(2))
        return {
            "hv": hv,
            "normalized_hv": hv / self.hv_true,
            "gd_plus": pareto.gd_plus(points, self.front),
            "igd_plus": pareto.igd_plus(points, self.front),
            "n_distinct": len(set(rows.tolist())),
            "n_non_dominated": len(points),
        }
