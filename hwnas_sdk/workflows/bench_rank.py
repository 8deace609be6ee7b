"""`hwnas bench rank`: does one score order architectures by their true Pareto rank?

Per device and seed a model sees the errors and costs of `train` architectures (a Latin hypercube
draw, dead cells left out) and nothing else of the tables; no shipped weights are loaded. It then
scores every live cell that was measured on the device, and the scores are compared with the Pareto
ranks of the true values over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import DataError, MissingExtraError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.metrics import tied_pairs
from hwnas_sdk.predictors.rank import RankPredictor
from hwnas_sdk.report.predictor_plots import draw_bars, draw_curve
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.tables import BenchTables, load_tables
from hwnas_sdk.workflows.rank_protocol import (
    Bools,
    Floats,
    Ints,
    RankBenchPlan,
    RankJudge,
    means,
)

_TASK: Final = "bench rank"
_DATASET: Final = "cifar10"
_MEANS: Final = {
    "mean_kendall": "Kendall tau-b",
    "mean_kendall_batch18": "in batches of 18",
    "mean_normalized_hv": "hypervolume of the best 100",
}


@dataclass(frozen=True)
class _Labels:
    """All a model may know of one device."""

    genotypes: Ints
    error_pct: Floats
    costs: Floats  # (n, k)


@dataclass(frozen=True)
class _Scored:
    """Scores of the judged rows by each way of ranking, and how long they took."""

    scores: dict[str, Floats]
    fit_seconds: float
    score_seconds: float


class RankBench:
    """Tables and what does not depend on the seed."""

    def __init__(self, tables: BenchTables, plan: RankBenchPlan) -> None:
        self.tables, self.plan = tables, plan
        self.space: SearchSpace = get_space("nasbench201")
        error = tables.error_pct(_DATASET)
        self.objectives: dict[str, Floats] = {}
        self.rows: dict[str, Ints] = {}
        for device in plan.devices:
            costs = [tables.device(device, metric=metric) for metric in plan.metrics]
            values = np.column_stack([error, *costs])
            # A cost of nothing is a network the runtime folded away, not a fast one.
            usable = tables.live & np.isfinite(values).all(axis=1) & (values[:, 1:] > 0).all(axis=1)
            if usable.sum() < plan.train:
                raise DataError(
                    f"{device}: {int(usable.sum())} measured live cells, {plan.train} are needed",
                    code="too_few_rows",
                )
            self.rows[device] = np.flatnonzero(usable)
            self.objectives[device] = values
        self.judges = {d: self.judge(d) for d in plan.devices}
        self.row_of = {tuple(g): row for row, g in enumerate(tables.genotypes.tolist())}
        self.trained: dict[tuple[str, int], tuple[Any, float]] = {}

    def judge(self, device: str, among: Bools | None = None) -> RankJudge:
        """The truth of a device's rows, or of those of them that `among` marks."""
        rows = self.rows[device] if among is None else self.rows[device][among]
        return RankJudge.of(self.objectives[device][rows])

    def training_rows(self, device: str, seed: int) -> Ints:
        """A Latin hypercube draw over the decisions; what was not measured is drawn again."""
        usable = set(self.rows[device].tolist())
        rng = child_rng(seed, _TASK, "train")  # the same architectures on every device
        chosen: dict[int, None] = {}
        while len(chosen) < self.plan.train:
            for genotype in self.space.latin_hypercube(self.plan.train, rng).tolist():
                row = self.row_of.get(tuple(genotype), -1)
                if row in usable and len(chosen) < self.plan.train:
                    chosen[row] = None
        return np.array(list(chosen), dtype=np.int64)

    def labels(self, device: str, rows: Ints) -> _Labels:
        """The labels a model gets; nothing else of a column leaves this object unjudged."""
        values = self.objectives[device][rows]
        return _Labels(self.tables.genotypes[rows], values[:, 0], values[:, 1:])

    @cached_property
    def encoder(self) -> Any:
        """Encoders of the network, trained on architectures alone; shared by all repetitions."""
        return _torch_half().pretrain(self.space, seed=0).encoder


def run_bench_rank(
    data_dirs: Sequence[Path],
    plan: RankBenchPlan | None = None,
    *,
    curve: Sequence[int] = (),
    batch_sizes: Sequence[int] = (),
    losses: Sequence[str] = (),
    plots: Path | None = None,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Learn each device from a few labels; compare the scores with the true Pareto ranks.

    Args:
        data_dirs: folders of public tables.
        plan: what is compared; None: the default.
        curve: numbers of labels; each repeats the bench and adds one row to ``curve``.
        batch_sizes: batch sizes of the network; each adds one row to ``batch_sizes``.
        losses: losses of the network; each adds one row to ``losses``.
        plots: folder for pictures (PNG), None for none: bars per device and per way of ranking,
            and a line per sweep.
        on_event: told after each device and seed.

    Returns the JSON document of the contract. Per device: tau-b over all judged cells, over pairs
    of different true rank, inside batches of 18, over function families without a label; the
    hypervolume of the 100 best-scored cells relative to the true front's; the ties of the truth.
    With `independent`: the same figures of independent predictors under ``independent``, and
    ``ahead``, whether the mean tau-b of the score is higher.

    Raises: ConfigError for unknown devices; DataError for missing tables or too few rows;
        MissingExtraError when the network is asked for without torch.
    """
    chosen = plan or RankBenchPlan()
    tables = load_tables(data_dirs)
    for device in chosen.devices:
        for metric in chosen.metrics:
            tables.device(device, metric=metric)
    if chosen.model == "network" or batch_sizes or losses:
        _torch_half()
    alone = replace(chosen, independent=False, new_platform=False)
    loss_plans = [replace(alone, model="network", loss=name) for name in losses]
    answer = _run(RankBench(tables, chosen), on_event)
    if curve:
        plans = [replace(alone, train=n) for n in curve]
        answer["curve"] = [_row(tables, p, on_event, "train", p.train) for p in plans]
    if batch_sizes:
        # The expected rank has no batches: the sweep is about the network.
        plans = [replace(alone, model="network", batch_size=n) for n in batch_sizes]
        answer["batch_sizes"] = [
            _row(tables, p, on_event, "batch_size", p.batch_size) for p in plans
        ]
    if loss_plans:
        answer["losses"] = [_row(tables, p, on_event, "loss", p.loss) for p in loss_plans]
    answer["plots"] = [] if plots is None else [str(path) for path in draw_rank(answer, plots)]
    return answer


def _row(
    tables: BenchTables,
    plan: RankBenchPlan,
    on_event: EventSink,
    name: str,
    value: int | str | None,
) -> dict[str, Any]:
    """One line of a sweep."""
    answer = _run(RankBench(tables, plan), on_event)
    return {name: value, **{key: answer[key] for key in (*_MEANS, "fit_seconds")}}


def draw_rank(answer: Mapping[str, Any], folder: Path) -> list[Path]:
    """Pictures of what `run_bench_rank` answered; returns their paths."""
    own = "expected rank" if answer["model"] == "posterior" else f"network, {answer['loss']}"
    ways = {own: {text: answer[key] for key, text in _MEANS.items()}}
    if "independent" in answer:
        other = answer["independent"]
        ways["independent"] = {text: other[key] for key, text in _MEANS.items()}
    for row in answer.get("losses", ()):
        ways[f"network, {row['loss']}"] = {text: row[key] for key, text in _MEANS.items()}
    groups = {text: {way: found[text] for way, found in ways.items()} for text in _MEANS.values()}
    drawn = [draw_bars(groups, label="mean over the devices", path=folder / "rank-ablation.png")]
    devices = {
        name: {own: figures["kendall"]}
        | ({"independent": figures["independent"]["kendall"]} if "independent" in figures else {})
        for name, figures in answer["devices"].items()
    }
    drawn.append(
        draw_bars(devices, label="Kendall tau-b with the rank", path=folder / "rank-devices.png")
    )
    for sweep, over, text in (
        ("curve", "train", "labelled architectures"),
        ("batch_sizes", "batch_size", "batch size of the network"),
    ):
        if answer.get(sweep):
            path = folder / f"rank-{sweep.replace('_', '-')}.png"
            labels = (text, "mean over the devices")
            drawn.append(
                draw_curve(answer[sweep], over=over, lines=_MEANS, labels=labels, path=path)
            )
    return drawn


def _run(bench: RankBench, on_event: EventSink) -> dict[str, Any]:
    plan = bench.plan
    rows: dict[str, dict[str, list[dict[str, float]]]] = {d: {} for d in plan.devices}
    fit_seconds, score_seconds = [], []
    total = plan.seeds * len(plan.devices)
    for seed in range(plan.seeds):
        for done, device in enumerate(plan.devices, start=1 + seed * len(plan.devices)):
            train = bench.training_rows(device, seed)
            scored = _scored(bench, device, train, seed)
            fit_seconds.append(scored.fit_seconds)
            score_seconds.append(scored.score_seconds)
            labelled = same_family(bench, device, train)
            for way, scores in scored.scores.items():
                figures = bench.judges[device].figures(scores, labelled=labelled, seed=seed)
                rows[device].setdefault(way, []).append(figures)
            tau = rows[device]["score"][-1]["kendall"]
            on_event(Event(_TASK, done, total, f"{device}, seed {seed}: tau-b {tau:.3f}"))
    answers = {device: _device_answer(bench, device, rows[device]) for device in plan.devices}
    keys = ("kendall", "kendall_distinct", "kendall_batch18", "normalized_hv")
    answer: dict[str, Any] = {"devices": answers}
    for key in keys:
        answer[f"mean_{key}"] = float(np.mean([a[key] for a in answers.values()]))
    if plan.independent:
        answer["independent"] = {
            f"mean_{key}": float(np.mean([a["independent"][key] for a in answers.values()]))
            for key in keys
        }
        answer["ahead_on"] = [d for d, a in answers.items() if a["ahead"]]
        answer["not_ahead_on"] = [d for d, a in answers.items() if not a["ahead"]]
    return answer | {
        "model": plan.model,
        "loss": plan.loss if plan.model == "network" else None,
        "objectives": ["error", *plan.metrics],
        "train": plan.train,
        "seeds": plan.seeds,
        "dataset": _DATASET,
        "sampling": "latin hypercube over the decisions, unmeasured and dead cells redrawn",
        "fit_seconds": round(float(np.mean(fit_seconds)), 3),
        "score_seconds": round(float(np.mean(score_seconds)), 4),
    }


def _device_answer(
    bench: RankBench, device: str, rows: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    ranks = bench.judges[device].ranks
    answer: dict[str, Any] = {
        **means(rows["score"]),
        "n": len(ranks),
        "n_fronts": int(ranks.max()) + 1,
        "n_tied_pairs": tied_pairs(ranks),
    }
    if "independent" in rows:
        other = means(rows["independent"])
        gains = [
            own["kendall"] - two["kendall"]
            for own, two in zip(rows["score"], rows["independent"], strict=True)
        ]
        answer["independent"] = other
        answer["ahead"] = bool(answer["kendall"] > other["kendall"])
        answer["gain"] = float(np.mean(gains))
        answer["seeds_ahead"] = int(np.sum(np.array(gains) > 0))
    if "new_platform" in rows:
        added = means(rows["new_platform"])
        answer["new_platform"] = added
        answer["new_platform_loss"] = answer["kendall"] - added["kendall"]
    return answer


def same_family(bench: RankBench, device: str, train: Ints) -> Bools:
    """Which judged rows compute the same function as a training row."""
    families = bench.tables.families
    same: Bools = np.isin(families[bench.rows[device]], families[train])
    return same


# --- models ---------------------------------------------------------------------------------------


def train_model(
    bench: RankBench, device: str, train: Ints, seed: int, *, on_event: EventSink = ignore
) -> tuple[Any, float]:
    """The plan's model of one device from the labels of some rows, and the seconds it took.

    Encoders are trained before the clock starts: they belong to the space, not to a platform.
    """
    labels = bench.labels(device, train)
    given = (bench.space, labels.genotypes, labels.error_pct, {device: labels.costs})
    if bench.plan.model == "posterior":
        started = time.perf_counter()
        model: Any = RankPredictor.fit(*given, seed=seed)
        return model, time.perf_counter() - started
    encoder, plan = bench.encoder, _network_plan(bench)
    started = time.perf_counter()
    model = _torch_half().RankNetwork.train(
        *given, encoder=encoder, plan=plan, seed=seed, on_event=on_event
    )
    return model, time.perf_counter() - started


def _trained_once(bench: RankBench, device: str, train: Ints, seed: int) -> tuple[Any, float]:
    """As `train_model`; where platforms are added to others, no model is trained twice."""
    key = (device, seed)
    if key in bench.trained:
        return bench.trained[key]
    trained = train_model(bench, device, train, seed)
    if bench.plan.new_platform:
        bench.trained[key] = trained
    return trained


def _network_plan(bench: RankBench) -> Any:
    return _torch_half().RankPlan(loss=bench.plan.loss, batch_size=bench.plan.batch_size)


def _scored(bench: RankBench, device: str, train: Ints, seed: int) -> _Scored:
    """Scores of the judged rows by the model and by what the plan compares it with."""
    wanted = bench.tables.genotypes[bench.rows[device]]
    model, fit_seconds = _trained_once(bench, device, train, seed)
    started = time.perf_counter()
    scores: dict[str, Floats] = {"score": model.score(wanted, device)}
    score_seconds = time.perf_counter() - started
    labels = bench.labels(device, train)
    if bench.plan.independent and bench.plan.model == "posterior":
        scores["independent"] = -model.independent_ranks(wanted, device)
    elif bench.plan.independent:
        predicted = _torch_half("independent").independent_predictions(
            bench.space,
            labels.genotypes,
            labels.error_pct,
            labels.costs,
            wanted,
            encoder=bench.encoder,
            plan=_network_plan(bench),
            seed=seed,
        )
        scores["independent"] = -pareto.ranks(predicted).astype(np.float64)
    if bench.plan.new_platform:
        # The device before it in the list (the last one for the first).
        other = bench.plan.devices[bench.plan.devices.index(device) - 1]
        base, _ = _trained_once(bench, other, bench.training_rows(other, seed), seed)
        more = base.add_platform(device, labels.genotypes, labels.costs, error_pct=labels.error_pct)
        scores["new_platform"] = more.score(wanted, device)
    return _Scored(scores, fit_seconds, score_seconds)


def _torch_half(module: str = "rank_network") -> Any:
    """A module of `predictors.neural`.

    Raises: MissingExtraError without torch.
    """
    try:
        return import_module(f"hwnas_sdk.predictors.neural.{module}")
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.split(".")[0] == "torch":
            raise MissingExtraError("torch", "torch", purpose="the rank network") from exc
        raise
