"""`hwnas bench search`: how good are the networks a search finds for devices it never saw?

A method may use the training devices' columns, `samples` latencies of the unseen device and
`train_accuracies` accuracies. It gets them through `Oracle`, which counts what it gives away; the
truth is otherwise only read to judge the candidates. No shipped weights are loaded. Errors are
those on CIFAR-10, whatever data set a device's latencies belong to.

How candidates are judged: see `search_protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.report.search_plots import Found, draw_fronts, draw_rounds
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.aliases import refuse_aliases
from hwnas_sdk.store.tables import DEAD_ERROR_PCT, BenchTables, load_tables
from hwnas_sdk.workflows.entrants import find_method
from hwnas_sdk.workflows.entrants.entry import TASK, Contest, Entry
from hwnas_sdk.workflows.search_protocol import (
    HELP_TRAIN_DEVICES,
    HELP_UNSEEN_DEVICES,
    METHODS,
    REFERENCES,
    Judge,
    Oracle,
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


def run_bench_search(
    data_dirs: Sequence[Path],
    *,
    method: str = "auto",
    train_devices: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    train_accuracies: int = 100,
    samples: int = 10,
    candidates: int = 24,
    rounds: int = 1,
    seeds: int = 5,
    references: str = "ours",
    plots: Path | None = None,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Search for each unseen device and judge the candidates by the table.

    Arguments are those of `SearchBenchPlan`; None takes its default. `plots` is a folder for
    pictures: the fronts that the first seed found and, with several rounds, the hypervolume after
    each.

    Returns the JSON document of the contract. With several rounds the figures of a device are
    those of all revealed candidates together, ``normalized_hv_by_round`` is that of what was
    revealed up to each round, and ``last_round`` holds those of the last round's candidates alone.
    ``search_seconds`` is one search with its scoring and choice;
    ``fit_seconds`` the fitting of both models before it; ``ask_seconds`` choosing which accuracies
    to ask for (their models included), ``train_seconds`` the training of what all devices share,
    once per seed; ``revealed`` what a method was shown.

    Raises: ConfigError for impossible plans, unknown devices and a training device that has the
        values of an unseen one under another name; DataError for missing tables or
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
    tables = load_tables(data_dirs)
    contest = _contest(tables, plan)
    answers: dict[str, dict[str, Any]] = {}
    found: dict[str, Found] = {}
    total = len(plan.devices) * plan.seeds
    for device in plan.devices:
        repeats = []
        for seed in range(plan.seeds):
            repeats.append(_repeat(plan, tables, contest, device, seed))
            done = len(answers) * plan.seeds + seed + 1
            value = repeats[-1]["all"]["normalized_hv"]
            on_event(Event(TASK, done, total, f"{device}, seed {seed}: {value:.4f}"))
        found[device] = repeats[0]["found"]
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
        "accuracy_sampling": "latin hypercube over the decisions, dead cells redrawn, "
        "unless a device says otherwise",
    }
    if plots is not None:
        path = plots / f"search-{plan.method}-fronts.png"
        result["plots"] = [str(draw_fronts(found, method=plan.method, path=path))]
        if plan.rounds > 1:
            path = plots / f"search-{plan.method}-rounds.png"
            result["plots"].append(str(draw_rounds(result, path=path)))
    if plan.rounds > 1:
        result["mean_normalized_hv_last_round"] = _mean(
            a["last_round"]["normalized_hv"] for a in answers.values()
        )
    return result


def _contest(tables: BenchTables, plan: SearchBenchPlan) -> Contest:
    for device in (*plan.train_devices, *plan.devices):
        tables.device(device)  # names a device the tables do not have
    features = structural_features(tables.genotypes)
    # Not `tables.live`, which looks at errors.
    alive = np.asarray(live_edges(tables.genotypes).any(axis=1), dtype=np.bool_)
    known = {device: tables.device(device) for device in plan.train_devices}
    refuse_aliases(known, {device: tables.device(device) for device in plan.devices})
    return Contest(
        space=get_space("nasbench201"),
        genotypes=tables.genotypes,
        index=tables.index,
        known=known,
        prior=LatencyPrior.fit(
            features[alive], {name: column[alive] for name, column in known.items()}
        ),
        features=features,
        row_of={tuple(g): row for row, g in enumerate(tables.genotypes.tolist())},
        alive=alive,
    )


def _repeat(
    plan: SearchBenchPlan, tables: BenchTables, contest: Contest, device: str, seed: int
) -> dict[str, Any]:
    """One device, one seed: propose, reveal, repeat; then judge."""
    error_pct = tables.error_pct("cifar10")
    latency_ms = tables.device(device)
    known = np.isfinite(error_pct) & np.isfinite(latency_ms)
    within = np.zeros(len(known), dtype=np.bool_)
    within[known] = error_pct[known] < DEAD_ERROR_PCT
    eligible = known & contest.alive
    needed = max(plan.candidates * plan.rounds, plan.train_accuracies, plan.samples)
    if int((eligible & within).sum()) < needed:
        raise DataError(
            f"{device}: the tables hold {int((eligible & within).sum())} usable rows, "
            f"{needed} are needed",
            code="too_few_rows",
        )
    oracle = Oracle(error_pct, latency_ms)
    entry = Entry(plan, contest, oracle, eligible, device, seed)
    proposals = find_method(plan.method)(entry)
    judge = Judge.of(error_pct, latency_ms, known & within)
    proposals = [rows[within[rows]] for rows in proposals]
    if not all(len(rows) for rows in proposals):
        raise DataError(
            f"{device}: every candidate of a round has an error of {DEAD_ERROR_PCT:g} % or more",
            code="nothing_found",
        )
    everything = np.concatenate(proposals)
    figures = judge.figures(everything)
    truth = np.column_stack([error_pct, latency_ms])
    front = np.flatnonzero(known & within)
    front = front[pareto.non_dominated_mask(truth[front])]
    return {
        "hv_true": judge.hv_true,
        "all": figures,
        "found": Found(truth[everything], truth[front], figures["normalized_hv"]),
        "last": judge.figures(proposals[-1]),
        "by_round": [
            judge.figures(np.concatenate(proposals[:n]))["normalized_hv"]
            for n in range(1, len(proposals) + 1)
        ],
        # A search and its fit are those of one round; the others happen once.
        "search_seconds": entry.spent["search"] / plan.rounds,
        "fit_seconds": entry.spent["fit"] / plan.rounds,
        "ask_seconds": entry.spent["ask"],
        "train_seconds": entry.spent["train"],
        "revealed": oracle.revealed,
        "notes": entry.notes,
    }


def _summary(plan: SearchBenchPlan, repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the seeds' standard deviation of the normalised hypervolume."""
    keys = repeats[0]["all"].keys()
    answer: dict[str, Any] = {key: _mean(r["all"][key] for r in repeats) for key in keys}
    values = [r["all"]["normalized_hv"] for r in repeats]
    answer["normalized_hv_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    answer["hv_true"] = repeats[0]["hv_true"]
    for key in ("search_seconds", "fit_seconds", "ask_seconds", "train_seconds"):
        answer[key] = round(_mean(r[key] for r in repeats), 3)
    answer["revealed"] = repeats[-1]["revealed"]
    answer.update(repeats[-1]["notes"])
    if plan.rounds > 1:
        answer["last_round"] = {key: _mean(r["last"][key] for r in repeats) for key in keys}
        by_round = np.mean([r["by_round"] for r in repeats], axis=0)
        answer["normalized_hv_by_round"] = by_round.tolist()
    return answer


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
