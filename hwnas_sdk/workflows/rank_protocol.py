"""Protocol of `hwnas bench rank`: what may be used, and how scores are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.metrics import kendall, tied_pairs
from hwnas_sdk.workflows.search_protocol import HELP_UNSEEN_DEVICES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MODELS: Final = ("posterior", "network")
LOSSES: Final = ("listwise", "paper_eq8", "efron", "pairwise")
METRICS: Final = ("latency", "energy")
BATCH: Final = 18  # of the paper; rank correlation inside batches of this size is judged too
_N_BATCHES: Final = 500
N_BEST: Final = 100
FEWEST_LABELS: Final = 30
FEWEST_JUDGED: Final = 30  # rows; agreement over fewer says nothing
MOST_LABELS: Final = 6_000
"""Of the posterior: 4 GB of covariances (they grow with the square) and minutes (with the cube)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBenchPlan:
    """What is compared, and what a model may use.

    Attributes:
        devices: platforms, each learned by itself.
        train: labelled architectures per device: error and costs.
        model: "posterior" (expected rank, ours) or "network" (HW-PR-NAS).
        loss: of the network.
        batch_size: of the network; None: the paper's.
        seeds: repetitions with other labelled architectures.
        metrics: costs beside the error: latency, energy or both.
        independent: also rank with two (three) independent predictors.
        new_platform: also learn each device as an addition to a predictor of another one.
    """

    devices: tuple[str, ...] = HELP_UNSEEN_DEVICES
    train: int = 500
    model: str = "posterior"
    loss: str = "listwise"
    batch_size: int | None = None
    seeds: int = 5
    metrics: tuple[str, ...] = ("latency",)
    independent: bool = False
    new_platform: bool = False

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out."""
        for name, value, known in (
            ("model", self.model, MODELS),
            ("loss", self.loss, LOSSES),
            *(("metric", metric, METRICS) for metric in self.metrics),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}", hint=f"one of {', '.join(known)}")
        if not self.devices or not self.metrics:
            raise ConfigError("nothing to rank for", hint="name devices and at least one metric")
        if self.train < FEWEST_LABELS or self.seeds < 1:
            raise ConfigError(
                f"{self.train} labels and {self.seeds} seeds: at least {FEWEST_LABELS} and 1 are "
                "needed"
            )
        if self.model == "posterior" and self.train > MOST_LABELS:
            raise ConfigError(
                f"{self.train} labels: the posterior learns from at most {MOST_LABELS}, its memory "
                "grows with their square",
                hint=f"at most {MOST_LABELS} labels, or --model network",
            )
        if self.batch_size is not None and self.batch_size < 2:
            raise ConfigError("a batch of one orders nothing", hint="--batch-size 18")
        if self.new_platform and len(self.devices) < 2:
            raise ConfigError("a new platform needs another device to be added to")


@dataclass(frozen=True)
class RankJudge:
    """Truth of one device over its judged rows; only for judging.

    Shapes: ranks (n,), scaled (n, m) objectives in [0, 1].
    """

    ranks: Ints
    scaled: Floats
    hv_true: float

    @classmethod
    def of(cls, objectives: Floats) -> RankJudge:
        """Pareto ranks and scaled objectives of all judged rows, (n, m)."""
        low, high = objectives.min(axis=0), objectives.max(axis=0)
        scaled = (objectives - low) / np.where(high > low, high - low, 1.0)
        front = scaled[pareto.non_dominated_mask(scaled)]
        return cls(pareto.ranks(objectives), scaled, pareto.hypervolume(front, _ones(scaled)))

    def counts(self) -> dict[str, int]:
        """What stands beside a tau-b: judged rows, true fronts, pairs of rows on one front."""
        return {
            "n": len(self.ranks),
            "n_fronts": int(self.ranks.max()) + 1,
            "n_tied_pairs": tied_pairs(self.ranks),
        }

    def figures(
        self, scores: Floats, *, labelled: Bools, seed: int, within: Floats | None = None
    ) -> dict[str, float]:
        """Agreement of scores (higher = better) with the true ranks.

        `labelled` marks rows of function families that have a member among the labels: agreement
        on the others cannot come from having seen the function. `within` are ranks a model gives
        the members of each of `batches(seed)` when it is asked for that batch, lower = better.

        A figure that nothing can be said of is NaN: agreement on fewer than 30 rows of new
        families, the hypervolume of the best 100 of no more rows than that.
        """
        new = ~labelled
        batches = self.batches(seed)
        told = {} if within is None else {"kendall_within18": self._in_batches(batches, within)}
        return told | {
            "kendall": _defined(kendall(self.ranks, -scores)),
            "kendall_distinct": distinct_kendall(self.ranks, -scores),
            "kendall_batch18": self._in_batches(batches, -scores[batches]),
            "kendall_new_families": _defined(kendall(self.ranks[new], -scores[new]))
            if new.sum() >= FEWEST_JUDGED
            else math.nan,
            "new_families_share": float(new.mean()),
            "normalized_hv": self._covered(scores, seed),
        }

    def _covered(self, scores: Floats, seed: int) -> float:
        """Hypervolume of the best-scored rows, relative to the true front's."""
        if len(scores) <= N_BEST:
            return math.nan
        best = self._best(scores, seed)
        return pareto.hypervolume(self.scaled[best], _ones(self.scaled)) / self.hv_true

    def _best(self, scores: Floats, seed: int) -> Ints:
        """The best-scored rows; which of equal scores is left to chance, not to table order."""
        lottery = child_rng(seed, "best rows").random(len(scores))
        return np.lexsort((lottery, -scores))[:N_BEST]

    def batches(self, seed: int) -> Ints:
        """Rows of random batches of 18, as the paper trains on, (500, 18)."""
        rng = child_rng(seed, "batches")
        n, size = len(self.ranks), min(BATCH, len(self.ranks))
        return np.array([rng.choice(n, size=size, replace=False) for _ in range(_N_BATCHES)])

    def _in_batches(self, batches: Ints, ranks: Floats) -> float:
        """Tau over pairs of different rank inside their batch; ranks (b, k), lower = better."""
        truth = pareto.ranks_of_sets(self.scaled[batches])
        better = truth[:, :, None] < truth[:, None, :]
        agree = np.sign(ranks[:, None, :] - ranks[:, :, None])[better].sum()
        return float(agree / max(better.sum(), 1))


def distinct_kendall(truth: NDArray[np.number], predicted: Floats) -> float:
    """Concordant minus discordant pairs over pairs of different truth.

    From tau-b = (C - D) / sqrt((n0 - n1) (n0 - n2)) with n1, n2 the tied pairs of either side.
    """
    n = len(truth)
    n_pairs = n * (n - 1) // 2
    distinct = n_pairs - tied_pairs(truth)
    tau = kendall(truth, predicted)
    if tau is None or distinct == 0:
        return 0.0
    difference = tau * np.sqrt(float(distinct) * float(n_pairs - tied_pairs(predicted)))
    return float(difference / distinct)


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure, and its sample standard deviation for those that are compared."""
    answer: dict[str, float] = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        answer[key] = float(values.mean())
        if key in ("kendall", "normalized_hv"):
            answer[f"{key}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return answer


def _ones(points: Floats) -> Floats:
    return np.ones(points.shape[1])


def _defined(tau: float | None) -> float:
    """A score that is constant orders nothing."""
    return 0.0 if tau is None else tau
