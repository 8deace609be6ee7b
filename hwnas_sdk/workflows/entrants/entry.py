"""What a method of `hwnas bench search` may know of one device with one seed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.predictors.references import PAPER_INDICES, d_optimal_references
from hwnas_sdk.search.select import choose_candidates
from hwnas_sdk.spaces import Genotypes, SearchSpace
from hwnas_sdk.workflows.search_protocol import Floats, Oracle, Rows, SearchBenchPlan

TASK: Final = "bench search"
Predict = Callable[[Genotypes], tuple[Floats, Floats]]
"""Genotypes (n, 6) -> mean and sd of (error_pct, latency_ms), two (n, 2)."""

Phase = Literal["ask", "train", "fit", "search"]
_STRATIFIED_DRAWS: Final = 200


@dataclass
class Contest:
    """What every method may know for free: the space, its rows, and the training devices.

    The tables themselves are not here: errors and the unseen devices' latencies come from the
    oracle of an entry only, which counts them.

    Attributes:
        genotypes, index: of each row, (n, 6) and official index (n,).
        known: latencies of the training devices, (n,) each.
        prior: fitted on them.
        features: structural features of each row, (n, F).
        row_of: row of each genotype.
        alive: rows whose output depends on the input, (n,).
        shared: models that do not depend on the unseen device, by what they depend on.
    """

    space: SearchSpace
    genotypes: Genotypes
    index: NDArray[np.int64]
    known: Mapping[str, Floats]
    prior: LatencyPrior
    features: Floats
    row_of: dict[tuple[int, ...], int]
    alive: NDArray[np.bool_]
    shared: dict[Any, Any] = field(default_factory=dict)

    def rows(self, genotypes: Genotypes) -> Rows:
        """Row of each genotype, -1 where the table has none."""
        return np.array([self.row_of.get(tuple(g), -1) for g in genotypes.tolist()], dtype=np.int64)


@dataclass
class Entry:
    """One device and one seed.

    Attributes:
        eligible: rows with known values that are alive, (n,).
        spent: seconds of all of a kind together; see `timed`.
        notes: what a method wants to say in the result.
    """

    plan: SearchBenchPlan
    contest: Contest
    oracle: Oracle
    eligible: NDArray[np.bool_]
    device: str
    seed: int
    on_event: EventSink = ignore
    spent: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(get_args(Phase), 0.0))
    notes: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count the time inside: choosing what to ask, training once, fitting, or searching."""
        started = time.perf_counter()
        yield
        self.spent[phase] += time.perf_counter() - started

    def child_seed(self, *names: Any) -> int:
        """Seed of a part of this entry."""
        return int(child_rng(self.seed, TASK, self.device, *names).integers(2**31))

    def refuse_rounds(self) -> None:
        """For methods that propose once. Raises: ConfigError when the plan has several rounds."""
        if self.plan.rounds != 1:
            raise ConfigError(
                f"{self.plan.method} proposes once: it does not learn from rounds",
                hint="--rounds 1, or one of auto, nsga2, rank",
            )

    # --- what is revealed -------------------------------------------------------------------------

    def accuracy_rows(self, n: int | None = None) -> Rows:
        """Architectures whose accuracy is known: Latin hypercube over the decisions, live ones."""
        wanted = self.plan.train_accuracies if n is None else n
        rng = child_rng(self.seed, TASK, "accuracies")
        rows: dict[int, None] = {}
        for _ in range(_STRATIFIED_DRAWS):
            missing = wanted - len(rows)
            if missing == 0:
                break
            drawn = self.contest.rows(self.contest.space.latin_hypercube(missing, rng)).tolist()
            rows.update(dict.fromkeys(r for r in drawn if r >= 0 and self.eligible[r]))
        else:  # a table with few of the space's rows
            rest = np.setdiff1d(np.flatnonzero(self.eligible), list(rows))
            picked = rng.choice(rest, wanted - len(rows), replace=False)
            rows.update(dict.fromkeys(picked.tolist()))
        return np.array(list(rows), dtype=np.int64)

    def reference_rows(self) -> Rows:
        """Architectures whose latency is known on the unseen device.

        Raises: DataError when the tables lack one of the paper's.
        """
        contest = self.contest
        if self.plan.references == "ours":
            return d_optimal_references(
                contest.prior, contest.features, self.plan.samples, eligible=self.eligible
            )
        row_of = {int(index): row for row, index in enumerate(contest.index)}
        rows = [row_of.get(index, -1) for index in PAPER_INDICES]
        if any(row < 0 or not self.eligible[row] for row in rows):
            raise DataError(
                f"{self.device}: the tables lack some of the paper's reference networks",
                code="too_few_rows",
                hint="use references 'ours'",
            )
        return np.array(rows, dtype=np.int64)

    # --- models -----------------------------------------------------------------------------------

    def fit_accuracy(self, rows: Rows) -> AccuracyModel:
        """Accuracy model of some rows."""
        return AccuracyModel.fit(self.contest.genotypes[rows], self.oracle.errors(rows))

    def fit_latency(self, rows: Rows) -> LatencyModel:
        """Latency model of the unseen device from some rows."""
        return self.contest.prior.adapt(self.contest.features[rows], self.oracle.latencies(rows))

    def both(self, accuracy: AccuracyModel, latency: LatencyModel) -> Predict:
        """Join two models to a predictor of both objectives."""

        def predict(genotypes: Genotypes) -> tuple[Floats, Floats]:
            by_error = accuracy.predict(genotypes)
            by_latency = latency.predict(structural_features(genotypes))
            return (
                np.column_stack([by_error.mean, by_latency.mean]),
                np.column_stack([by_error.sd, by_latency.sd]),
            )

        return predict

    def recalled(self, rows: Rows, values: Floats, sd: Floats) -> tuple[Floats, Floats]:
        """Predictions (len(rows), 2) with what was revealed in their place, of sd 0."""
        known, true = self.oracle.recall(rows)
        return np.where(known, true, values), np.where(known, 0.0, sd)

    def allowed(self, taken: Sequence[Rows]) -> NDArray[np.bool_]:
        """Eligible rows that were not proposed yet, (n,)."""
        mask = self.eligible.copy()
        for rows in taken:
            mask[rows] = False
        return mask

    def not_allowed(self, allowed: NDArray[np.bool_]) -> Callable[[Genotypes], Floats]:
        """Constraint violation for searchers: 1 for what is not in the tables or was taken."""

        def violation(genotypes: Genotypes) -> Floats:
            rows = self.contest.rows(genotypes)
            return np.where((rows >= 0) & allowed[rows], 0.0, 1.0)

        return violation

    def attained(self, taken: Sequence[Rows]) -> Floats | None:
        """True values of all candidates of earlier rounds, (j, 2); None before the first."""
        if not len(taken):
            return None
        rows = np.concatenate(taken)
        return np.column_stack([self.oracle.errors(rows), self.oracle.latencies(rows)])

    def choose(
        self,
        rows: Rows,
        values: Floats,
        sd: Floats | None,
        *,
        known: Floats | None,
        seed: int,
        k: int | None = None,
    ) -> Rows:
        """The candidates among `rows`, by expected hypervolume; values and sd (len(rows), 2).

        With sd, whatever was revealed to the method is exact, whatever its models say.
        """
        genotypes = self.contest.genotypes[rows]
        if sd is not None:
            values, sd = self.recalled(rows, values, sd)
        chosen = choose_candidates(
            values,
            sd,
            self.plan.candidates if k is None else k,
            kin=np.where(live_edges(genotypes), genotypes, 0),
            known=known,
            seed=seed,
        )
        return rows[chosen]
