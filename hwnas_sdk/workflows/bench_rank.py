"""`hwnas bench rank`: does one score order architectures by their true Pareto rank?

Per device and seed a model sees the errors and costs of `train` architectures (a Latin hypercube
draw, dead cells left out) and nothing else of the tables; no shipped weights are loaded. It then
scores every live cell that was measured on the device, and the scores are compared with the Pareto
ranks of the true values over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.report.predictor_plots import draw_bars, draw_curve
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.rank_models import scored
from hwnas_sdk.workflows.rank_protocol import RankBenchPlan, means
from hwnas_sdk.workflows.rank_tables import DATASET, RankBench, same_family, torch_half

_TASK: Final = "bench rank"
_JUDGED: Final = (
    "kendall", "kendall_new_families", "kendall_distinct", "kendall_batch18", "kendall_within18",
    "normalized_hv",
)  # fmt: skip
_BARS: Final = "rank-ablation.png"
MEANS: Final = {  # what a line of a sweep has, and the pictures show
    "mean_kendall": "Kendall tau-b",
    "mean_kendall_new_families": "tau-b, functions without a label",
    "mean_kendall_batch18": "in batches of 18",
    "mean_normalized_hv": "hypervolume of the best 100",
}


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
        on_event: told after each device and seed, and by networks after each epoch.

    Returns the JSON document of the contract. Per device: tau-b over all judged cells, over those
    of function families without a label (and the share of them among all), over pairs of different
    true rank, inside batches of 18 (``kendall_within18``: when a model that can is asked for the
    ranks inside that batch); the hypervolume of the 100 best-scored cells relative to the true
    front's; the ties of the truth. With `independent`: the same figures of independent predictors
    under ``independent``, and ``ahead``, whether the mean tau-b of the score is higher.

    Every plan and place is checked before the work begins.

    Raises: ConfigError for unknown devices or plans that cannot be carried out; DataError for
        missing tables, too few rows or a folder that cannot be written; MissingExtraError when the
        network is asked for without torch.
    """
    chosen = plan or RankBenchPlan()
    alone = replace(chosen, independent=False, new_platform=False)
    # The expected rank has neither batches nor losses: those sweeps are about the network.
    sweeps = {
        "curve": ("train", [replace(alone, train=n) for n in curve]),
        "batch_sizes": (
            "batch_size", [replace(alone, model="network", batch_size=n) for n in batch_sizes]
        ),
        "losses": ("loss", [replace(alone, model="network", loss=name) for name in losses]),
    }  # fmt: skip
    if plots is not None:
        check_writable(plots / _BARS)
    if chosen.model == "network" or batch_sizes or losses:
        torch_half()
    tables = load_tables(data_dirs)
    bench = RankBench(tables, chosen, on_event=on_event)
    variants = {
        name: (over, [bench.varied(p) for p in plans]) for name, (over, plans) in sweeps.items()
    }
    count = _Count(on_event, [bench, *(b for _, found in variants.values() for b in found)])
    answer = _run(bench, count)
    for name, (over, found) in variants.items():
        if found:
            answer[name] = [_row(b, count, over) for b in found]
    answer["plots"] = [] if plots is None else [str(path) for path in draw_rank(answer, plots)]
    return answer


class _Count:
    """Tells how far the bench is: one step per device, seed and plan."""

    def __init__(self, on_event: EventSink, benches: Sequence[RankBench]) -> None:
        self.on_event, self.done = on_event, 0
        self.total = sum(b.plan.seeds * len(b.plan.devices) for b in benches)
        plan = benches[0].plan
        self._tell(f"{plan.devices[0]}, seed 0: learning from {plan.train} labels")

    def step(self, message: str) -> None:
        """One more training judged."""
        self.done += 1
        self._tell(message)

    def _tell(self, message: str) -> None:
        self.on_event(Event(_TASK, self.done, self.total, message))


def _row(bench: RankBench, count: _Count, over: str) -> dict[str, Any]:
    """One line of a sweep over a field of the plan."""
    answer = _run(bench, count)
    kept = {key: answer[key] for key in (*MEANS, "fit_seconds")}
    return {over: getattr(bench.plan, over), **kept}


def draw_rank(answer: Mapping[str, Any], folder: Path) -> list[Path]:
    """Pictures of what `run_bench_rank` answered; returns their paths."""
    own = "expected rank" if answer["model"] == "posterior" else f"network, {answer['loss']}"
    ways = {own: {text: answer[key] for key, text in MEANS.items()}}
    if "independent" in answer:
        other = answer["independent"]
        ways["independent"] = {text: other[key] for key, text in MEANS.items()}
    for row in answer.get("losses", ()):
        ways[f"network, {row['loss']}"] = {text: row[key] for key, text in MEANS.items()}
    groups = {text: {way: found[text] for way, found in ways.items()} for text in MEANS.values()}
    drawn = [draw_bars(groups, label="mean over the devices", path=folder / _BARS)]
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
                draw_curve(answer[sweep], over=over, lines=MEANS, labels=labels, path=path)
            )
    return drawn


def _run(bench: RankBench, count: _Count) -> dict[str, Any]:
    plan = bench.plan
    rows: dict[str, dict[str, list[dict[str, float]]]] = {d: {} for d in plan.devices}
    fit_seconds, score_seconds = [], []
    for seed in range(plan.seeds):
        for device in plan.devices:
            train = bench.training_rows(device, seed)
            found = scored(bench, device, train, seed)
            fit_seconds.append(found.fit_seconds)
            score_seconds.append(found.score_seconds)
            labelled = same_family(bench, device, train)
            for way, scores in found.scores.items():
                figures = bench.judges[device].figures(
                    scores, labelled=labelled, seed=seed, within=found.within.get(way)
                )
                rows[device].setdefault(way, []).append(figures)
            tau = rows[device]["score"][-1]["kendall"]
            count.step(f"{device}, seed {seed}: tau-b {tau:.3f}")
    answers = {device: _device_answer(bench, device, rows[device]) for device in plan.devices}
    answer: dict[str, Any] = {"devices": answers}
    keys = [key for key in _JUDGED if all(key in a for a in answers.values())]
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
        "dataset": DATASET,
        "sampling": "latin hypercube over the decisions, unmeasured and dead cells redrawn",
        "fit_seconds": round(float(np.mean(fit_seconds)), 3),
        "score_seconds": round(float(np.mean(score_seconds)), 4),
    }


def _device_answer(
    bench: RankBench, device: str, rows: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    answer: dict[str, Any] = {**means(rows["score"]), **bench.judges[device].counts()}
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
