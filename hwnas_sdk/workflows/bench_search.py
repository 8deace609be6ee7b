"""`hwnas bench search`: how good are the networks a search finds for devices it never saw?

A method may use the training devices' columns, `samples` latencies of the unseen device and
`train_accuracies` accuracies. It gets them through `Oracle`, which counts what it gives away; the
truth is otherwise only read to judge the candidates. No shipped weights are loaded. Errors are
those on CIFAR-10, whatever data set a device's latencies belong to.

How candidates are judged: see `search_protocol`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.predictors.references import PAPER_INDICES, d_optimal_references
from hwnas_sdk.search.nsga2 import Nsga2Searcher
from hwnas_sdk.search.run import search
from hwnas_sdk.search.select import choose_candidates
from hwnas_sdk.spaces import Genotypes, SearchSpace, get_space
from hwnas_sdk.store.tables import DEAD_ERROR_PCT, BenchTables, load_tables
from hwnas_sdk.workflows.search_protocol import (
    HELP_TRAIN_DEVICES,
    HELP_UNSEEN_DEVICES,
    METHODS,
    REFERENCES,
    Floats,
    Judge,
    Oracle,
    Rows,
    SearchBenchPlan,
)

__all__ = [
    "HELP_TRAIN_DEVICES",
    "HELP_UNSEEN_DEVICES",
    "METHODS",
    "REFERENCES",
    "Judge",
    "Oracle",
    "SearchBenchPlan",
    "run_bench_search",
]

POPULATION: Final = 100
GENERATIONS: Final = 50
_TASK: Final = "bench search"
_STRATIFIED_DRAWS: Final = 200


@dataclass
class _Table:
    """What every method may know for free: the space, its rows, and the training devices."""

    space: SearchSpace
    tables: BenchTables
    prior: LatencyPrior
    features: Floats
    row_of: dict[tuple[int, ...], int]
    alive: NDArray[np.bool_]

    def rows(self, genotypes: Genotypes) -> Rows:
        """Row of each genotype, -1 where the table has none."""
        return np.array([self.row_of.get(tuple(g), -1) for g in genotypes.tolist()], dtype=np.int64)


def run_bench_search(
    data_dirs: Sequence[Path],
    *,
    method: str = "nsga2",
    train_devices: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    train_accuracies: int = 100,
    samples: int = 10,
    candidates: int = 24,
    rounds: int = 1,
    seeds: int = 5,
    references: str = "ours",
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Search for each unseen device and judge the candidates by the table.

    Arguments are those of `SearchBenchPlan`; None takes its default.

    Returns the JSON document of the contract. With several rounds the figures of a device are
    those of all revealed candidates together, and ``last_round`` holds those of the last round's
    candidates alone. ``search_seconds`` is one search with its scoring and choice;
    ``fit_seconds`` the fitting of both models before it; ``revealed`` what a method was shown.

    Raises: ConfigError for impossible plans and unknown devices; DataError for missing tables or
        too few usable rows.
    """
    plan = SearchBenchPlan(
        method=method,
        train_devices=tuple(train_devices or HELP_TRAIN_DEVICES),
        devices=tuple(dict.fromkeys(devices or HELP_UNSEEN_DEVICES)),
        train_accuracies=train_accuracies,
        samples=samples,
        candidates=candidates,
        rounds=rounds,
        seeds=seeds,
        references=references,
    )
    table = _read(data_dirs, plan)
    answers: dict[str, dict[str, Any]] = {}
    total = len(plan.devices) * plan.seeds
    for device in plan.devices:
        repeats = []
        for seed in range(plan.seeds):
            repeats.append(_repeat(plan, table, device, seed))
            done = len(answers) * plan.seeds + seed + 1
            value = repeats[-1]["all"]["normalized_hv"]
            on_event(Event(_TASK, done, total, f"{device}, seed {seed}: {value:.4f}"))
        answers[device] = _summary(plan, repeats)
    result: dict[str, Any] = {
        "devices": answers,
        "mean_normalized_hv": _mean(a["normalized_hv"] for a in answers.values()),
        "method": plan.method,
        "train_devices": list(plan.train_devices),
        "train_accuracies": plan.train_accuracies,
        "samples": plan.samples,
        "candidates": plan.candidates,
        "rounds": plan.rounds,
        "seeds": plan.seeds,
        "references": plan.references,
        "dataset": "cifar10",
        "accuracy_sampling": "latin hypercube over the decisions, dead cells redrawn",
    }
    if plan.rounds > 1:
        result["mean_normalized_hv_last_round"] = _mean(
            a["last_round"]["normalized_hv"] for a in answers.values()
        )
    return result


def _read(data_dirs: Sequence[Path], plan: SearchBenchPlan) -> _Table:
    tables = load_tables(data_dirs)
    for device in (*plan.train_devices, *plan.devices):
        tables.device(device)  # names a device the tables do not have
    space = get_space("nasbench201")
    features = structural_features(tables.genotypes)
    alive = np.array([not space.is_dead(space.architecture(g)) for g in tables.genotypes])
    latencies = {device: tables.device(device)[alive] for device in plan.train_devices}
    return _Table(
        space=space,
        tables=tables,
        prior=LatencyPrior.fit(features[alive], latencies),
        features=features,
        row_of={tuple(g): row for row, g in enumerate(tables.genotypes.tolist())},
        alive=alive,
    )


def _repeat(plan: SearchBenchPlan, table: _Table, device: str, seed: int) -> dict[str, Any]:
    """One device, one seed: propose, reveal, repeat; then judge."""
    error_pct = table.tables.error_pct("cifar10")
    latency_ms = table.tables.device(device)
    known = np.isfinite(error_pct) & np.isfinite(latency_ms)
    within = np.zeros(len(known), dtype=np.bool_)
    within[known] = error_pct[known] < DEAD_ERROR_PCT
    eligible = known & table.alive
    needed = max(plan.candidates * plan.rounds, plan.train_accuracies, plan.samples)
    if int((eligible & within).sum()) < needed:
        raise DataError(
            f"{device}: the tables hold {int((eligible & within).sum())} usable rows, "
            f"{needed} are needed",
            code="too_few_rows",
        )
    oracle = Oracle(error_pct, latency_ms)
    method: Callable[..., list[Rows]] = _METHODS[plan.method]
    spent: dict[str, list[float]] = {"search": [], "fit": []}
    proposals = method(plan, table, oracle, eligible, device=device, seed=seed, spent=spent)
    judge = Judge.of(error_pct, latency_ms, known & within)
    proposals = [rows[within[rows]] for rows in proposals]
    if not all(len(rows) for rows in proposals):
        raise DataError(
            f"{device}: every candidate of a round has an error of {DEAD_ERROR_PCT:g} % or more",
            code="nothing_found",
        )
    return {
        "hv_true": judge.hv_true,
        "all": judge.figures(np.concatenate(proposals)),
        "last": judge.figures(proposals[-1]),
        "search_seconds": float(np.mean(spent["search"])),
        "fit_seconds": float(np.mean(spent["fit"])) if spent["fit"] else 0.0,
        "revealed": oracle.revealed,
    }


def _random(
    plan: SearchBenchPlan,
    table: _Table,
    oracle: Oracle,
    eligible: NDArray[np.bool_],
    *,
    device: str,
    seed: int,
    spent: dict[str, list[float]],
) -> list[Rows]:
    """Candidates at random; uses nothing."""
    del table, oracle
    started = time.perf_counter()
    rng = child_rng(seed, _TASK, "random", device)
    drawn = rng.choice(np.flatnonzero(eligible), plan.candidates * plan.rounds, replace=False)
    spent["search"].append(time.perf_counter() - started)
    return [np.sort(rows) for rows in np.split(drawn, plan.rounds)]


def _nsga2(
    plan: SearchBenchPlan,
    table: _Table,
    oracle: Oracle,
    eligible: NDArray[np.bool_],
    *,
    device: str,
    seed: int,
    spent: dict[str, list[float]],
) -> list[Rows]:
    """Fit both models, evolve, choose; with rounds, again with what was revealed."""
    error_rows = _accuracy_rows(plan, table, eligible, seed)
    latency_rows = _reference_rows(plan, table, eligible, device)
    proposals: list[Rows] = []
    for number in range(plan.rounds):
        started = time.perf_counter()
        accuracy = AccuracyModel.fit(table.tables.genotypes[error_rows], oracle.errors(error_rows))
        latency = table.prior.adapt(table.features[latency_rows], oracle.latencies(latency_rows))
        spent["fit"].append(time.perf_counter() - started)

        def predict(
            genotypes: Genotypes, accuracy: Any = accuracy, latency: Any = latency
        ) -> tuple[Floats, Floats]:
            by_error = accuracy.predict(genotypes)
            by_latency = latency.predict(structural_features(genotypes))
            return (
                np.column_stack([by_error.mean, by_latency.mean]),
                np.column_stack([by_error.sd, by_latency.sd]),
            )

        started = time.perf_counter()
        taken = np.concatenate([np.empty(0, dtype=np.int64), *proposals])
        rows = _search(
            plan,
            table,
            predict,
            eligible & ~np.isin(np.arange(len(eligible)), taken),
            known=np.column_stack([oracle.errors(taken), oracle.latencies(taken)]),
            seed=int(child_rng(seed, _TASK, device, number).integers(2**31)),
        )
        spent["search"].append(time.perf_counter() - started)
        proposals.append(rows)
        if number + 1 < plan.rounds:
            error_rows = np.concatenate([error_rows, rows[~np.isin(rows, error_rows)]])
            latency_rows = np.concatenate([latency_rows, rows[~np.isin(rows, latency_rows)]])
    return proposals


_METHODS: Final[Mapping[str, Callable[..., list[Rows]]]] = {"nsga2": _nsga2, "random": _random}


def _search(
    plan: SearchBenchPlan,
    table: _Table,
    predict: Callable[[Genotypes], tuple[Floats, Floats]],
    allowed: NDArray[np.bool_],
    *,
    known: Floats,
    seed: int,
) -> Rows:
    """Rows of the candidates of one round."""

    def not_allowed(genotypes: Genotypes) -> Floats:
        rows = table.rows(genotypes)
        return np.where((rows >= 0) & allowed[rows], 0.0, 1.0)

    searcher = Nsga2Searcher(table.space, population=POPULATION, seed=seed)
    found = search(
        table.space,
        lambda genotypes: predict(genotypes)[0],
        searcher,
        GENERATIONS,
        n_per_generation=POPULATION,
        violation=not_allowed,
    ).evaluated
    values, sd = predict(found.genotypes)
    chosen = choose_candidates(
        values,
        sd,
        plan.candidates,
        kin=np.where(live_edges(found.genotypes), found.genotypes, 0),
        known=known if len(known) else None,
        feasible=found.violation == 0.0,
        seed=seed,
    )
    return table.rows(found.genotypes[chosen])


def _accuracy_rows(
    plan: SearchBenchPlan, table: _Table, eligible: NDArray[np.bool_], seed: int
) -> Rows:
    """Architectures whose accuracy is known: Latin hypercube over the decisions, live ones only."""
    rng = child_rng(seed, _TASK, "accuracies")
    rows: dict[int, None] = {}
    for _ in range(_STRATIFIED_DRAWS):
        missing = plan.train_accuracies - len(rows)
        if missing == 0:
            break
        drawn = table.rows(table.space.latin_hypercube(missing, rng)).tolist()
        rows.update(dict.fromkeys(row for row in drawn if row >= 0 and eligible[row]))
    else:  # a table with few of the space's rows
        rest = np.setdiff1d(np.flatnonzero(eligible), list(rows))
        picked = rng.choice(rest, plan.train_accuracies - len(rows), replace=False)
        rows.update(dict.fromkeys(picked.tolist()))
    return np.array(list(rows), dtype=np.int64)


def _reference_rows(
    plan: SearchBenchPlan, table: _Table, eligible: NDArray[np.bool_], device: str
) -> Rows:
    if plan.references == "ours":
        return d_optimal_references(table.prior, table.features, plan.samples, eligible=eligible)
    row_of = {int(index): row for row, index in enumerate(table.tables.index)}
    rows = [row_of.get(index, -1) for index in PAPER_INDICES]
    if any(row < 0 or not eligible[row] for row in rows):
        raise DataError(
            f"{device}: the tables lack some of the paper's reference networks",
            code="too_few_rows",
            hint="use references 'ours'",
        )
    return np.array(rows, dtype=np.int64)


def _summary(plan: SearchBenchPlan, repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the seeds' standard deviation of the normalised hypervolume."""
    keys = repeats[0]["all"].keys()
    answer: dict[str, Any] = {key: _mean(r["all"][key] for r in repeats) for key in keys}
    values = [r["all"]["normalized_hv"] for r in repeats]
    answer["normalized_hv_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    answer["hv_true"] = repeats[0]["hv_true"]
    for key in ("search_seconds", "fit_seconds"):
        answer[key] = round(_mean(r[key] for r in repeats), 3)
    answer["revealed"] = repeats[-1]["revealed"]
    if plan.rounds > 1:
        answer["last_round"] = {key: _mean(r["last"][key] for r in repeats) for key in keys}
    return answer


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
