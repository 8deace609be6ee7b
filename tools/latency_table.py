"""Every registered transfer model on every unseen device, as the page docs/latency-table.md.

    python tools/latency_table.py --data DIR [--models A,B] [--out FILE] [--state FILE]

Each figure is what `hwnas bench latency` prints for the same options. What was computed is kept in
the state file after every run, so that a killed command goes on where it was; it belongs to one
version of the code and is to be deleted when that changes. Cheap models are also judged on five
random draws of references, on the unseen devices and on the training devices left out in turn. A
few are judged on energy, carried over from latencies and from another device's energies. The cheap
ones are judged on further devices and data sets as well, which no published method was judged on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from bench_state import BenchState

from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.predictors.registry import TRANSFER_MODELS
from hwnas_sdk.workflows.bench_latency import run_bench_latency
from hwnas_sdk.workflows.latency_protocol import ENERGY_DEVICES
from hwnas_sdk.workflows.search_protocol import HELP_TRAIN_DEVICES, HELP_UNSEEN_DEVICES

ROOT = Path(__file__).resolve().parents[1]
SETS: Final = ("ours", "paper")
CHEAP: Final = frozenset(
    {"bayes", "flops", "params", "additive", "linear-transfer", "nearest-device"}
)
FURTHER_DEVICES: Final = (
    "cifar10_edgetpu", "imagenet16_120_edgetpu", "cifar10_edgegpu", "imagenet16_120_edgegpu",
    "imagenet16_120_raspi4",
)  # fmt: skip
ENERGY_MODELS: Final = ("auto", "linear-transfer", "nearest-device", "additive", "flops")
N_DRAWS: Final = 5
INTRODUCTION = """\
# Latency of unseen devices: every model

Made by `python tools/latency_table.py --data DIR`; do not edit. Each figure is what
`hwnas bench latency --model MODEL --references SET --samples {samples}` prints.

{n_known} known devices, {samples} measured networks of each unseen one and nothing else of it;
judged are all other live cells. How settings were chosen is told in [Predictors](predictors.md).
The models:

{models}

`brp-nas` and `gates` are published for hundreds of labels of the device and see only the samples
here; `hwnas bench latency --model brp-nas --references random --samples 900` is the published
protocol. A model of order (`gates`, `flops`, `params`, `nearest-device`) gets its milliseconds from
a straight line through the samples.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of the bench."""

    model: str
    references: str
    seed: int = 0
    leave_one_out: bool = False
    group: str = "unseen"  # of devices judged: unseen, energy or further

    @property
    def metric(self) -> str:
        """What is predicted."""
        return "energy" if self.group == "energy" else "latency"

    @property
    def key(self) -> str:
        """Name in the state file."""
        return json.dumps(asdict(self), sort_keys=True)


def energy_jobs(models: Sequence[str]) -> Iterator[Job]:
    """Energy from what is known of latencies, as searches predict it, then from energies."""
    for leave_one_out in (False, True):
        for model in ENERGY_MODELS:
            if model in models:
                yield Job(model, "ours", leave_one_out=leave_one_out, group="energy")


def further_jobs(models: Sequence[str]) -> Iterator[Job]:
    """Both designed reference sets, and random ones."""
    for model in models:
        if model in CHEAP:
            for references in SETS:
                yield Job(model, references, group="further")
            for seed in range(N_DRAWS):
                yield Job(model, "random", seed, group="further")


def jobs(models: Sequence[str], *, energy: bool = True, further: bool = True) -> Iterator[Job]:
    """Everything the page needs, the cheap and the important first."""
    for model in sorted(models, key=lambda name: name not in CHEAP):
        for references in SETS:
            # Of the paper's references alone nothing is left for a model that needs others beside.
            if references != "paper" or not TRANSFER_MODELS[model].n_beside_references:
                yield Job(model, references)
    for leave_one_out in (False, True):
        for model in models:
            if model in CHEAP:
                for seed in range(N_DRAWS):
                    yield Job(model, "random", seed, leave_one_out)
    if energy:
        yield from energy_jobs(models)
    if further:
        yield from further_jobs(models)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--models", help="default: all that can do with the samples")
    parser.add_argument("--train-devices", default=",".join(HELP_TRAIN_DEVICES))
    parser.add_argument("--devices", default=",".join(HELP_UNSEEN_DEVICES))
    parser.add_argument(
        "--energy-devices", default=",".join(ENERGY_DEVICES), help="'' leaves energy out"
    )
    parser.add_argument(
        "--further-devices", default=",".join(FURTHER_DEVICES), help="'' leaves them out"
    )
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "latency-table.md")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "latency-table.json")
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing; the page says what is missing"
    )
    options = parser.parse_args(arguments)
    # A model that must measure more than the others is no row of theirs, unless asked for.
    comparable = [name for name, m in TRANSFER_MODELS.items() if not m.n_beside_references]
    models = options.models.split(",") if options.models else comparable
    known, unseen = options.train_devices.split(","), options.devices.split(",")
    energy = [name for name in options.energy_devices.split(",") if name]
    further = [name for name in options.further_devices.split(",") if name]
    question = {
        "known": known,
        "unseen": unseen,
        "energy": energy,
        "further": further,
        "samples": options.samples,
    }
    state = BenchState(options.state, question)
    for job in () if options.page_only else _wanted(models, question):
        state.compute(job.key, partial(bench, job, options, question))
    if not state.answers:
        sys.exit("nothing was run yet: leave out --page-only")
    with state.alone():
        write_text_atomic(options.out, page(models, question, state.answers))
    return 0


def _wanted(models: Sequence[str], question: dict[str, Any]) -> list[Job]:
    return list(jobs(models, energy=bool(question["energy"]), further=bool(question["further"])))


def bench(job: Job, options: argparse.Namespace, question: dict[str, Any]) -> dict[str, Any]:
    """What the bench says of one job."""
    known, devices = question["known"], question[job.group]
    if job.leave_one_out:
        known, devices = ([], devices) if job.group == "energy" else (known, known)
    return run_bench_latency(
        options.data,
        train_devices=known,
        devices=devices,
        samples=options.samples,
        metric=job.metric,
        train_metric="energy" if job.metric == "energy" and job.leave_one_out else "latency",
        model=job.model,
        references=job.references,
        leave_one_out=job.leave_one_out,
        seed=job.seed,
    )


def page(models: Sequence[str], question: dict[str, Any], answers: dict[str, Any]) -> str:
    """The page as Markdown."""
    unseen: list[str] = question["unseen"]
    wanted = _wanted(models, question)
    missing = [job for job in wanted if job.key not in answers]
    some: dict[str, Any] = next(
        (answers[job.key] for job in wanted if job.key in answers and _on_unseen(job)), {}
    )
    parts = [
        INTRODUCTION.format(
            samples=question["samples"],
            n_known=len(question["known"]),
            models="\n".join(f"- `{name}`: {TRANSFER_MODELS[name].summary}" for name in models),
        ),
        *([_not_run(missing)] if missing else []),
        "## The truth\n",
        _truth(some.get("devices", {})),
    ]
    for references in SETS:
        asked = {name: answers.get(Job(name, references).key) for name in models}
        chosen = {name: answer for name, answer in asked.items() if answer is not None}
        parts += [f"## References: {references}\n", _means(chosen), *_by_device(chosen, unseen)]
    cheap = [name for name in models if name in CHEAP]
    if cheap:
        parts += [
            f"## Spread over {N_DRAWS} random draws of the references\n",
            "Mean and standard deviation over the draws.\n",
            _spread(cheap, answers, unseen),
        ]
    if question["further"]:
        parts += _further(cheap, answers, question["further"])
    if question["energy"]:
        parts += _energy(models, answers, question["energy"])
    return "\n".join(parts).rstrip() + "\n"


def _on_unseen(job: Job) -> bool:
    return job.group == "unseen" and not job.leave_one_out


def _further(
    models: Sequence[str], answers: dict[str, Any], devices: Sequence[str]
) -> Iterator[str]:
    yield "## Further devices and data sets\n"
    yield (
        "Kendall tau-b; the known devices are the same. These are not blind: that a device may be "
        "a noisy sum\nof costs unlike all known ones was added after they had been looked at "
        "once.\nRandom: mean and standard deviation over the draws.\n"
    )
    for references in (*SETS, "random"):
        seeds = range(N_DRAWS) if references == "random" else (0,)
        rows = []
        for name in models:
            keys = [Job(name, references, seed, group="further").key for seed in seeds]
            runs = [answers[key]["devices"] for key in keys if key in answers]
            if runs:
                taus = [[run[device]["kendall"] for run in runs] for device in devices]
                rows.append([f"`{name}`", *map(_spread_of, taus)])
        if rows:
            yield f"References: {references}\n\n" + _table(["model", *devices], rows)


def _energy(
    models: Sequence[str], answers: dict[str, Any], devices: Sequence[str]
) -> Iterator[str]:
    yield "## Energy\n"
    yield (
        "Public energies there are of few devices. That of the FPGA is left out: it is 7 W times "
        "its latency.\nSearches know latencies of other devices and few energies of their own; "
        "that is the first table.\n"
    )
    titles = ("Known: latencies of the known devices", "Known: energies of the other devices")
    for title, leave_one_out in zip(titles, (False, True), strict=True):
        rows = [
            [f"`{job.model}`", *_energy_cells(answers[job.key]["devices"], devices)]
            for job in energy_jobs(models)
            if job.leave_one_out is leave_one_out and job.key in answers
        ]
        header = [
            f"{d}: {what}"
            for d in devices
            for what in ("Spearman", "Kendall", "median APE %", "coverage of 90 %")
        ]
        if rows:
            yield f"{title}:\n\n" + _table(["model", *header], rows)


def _energy_cells(figures: dict[str, Any], devices: Sequence[str]) -> Iterator[str]:
    for name in devices:
        for key, digits in (("spearman", 3), ("kendall", 3), ("median_ape_pct", 1),
                            ("coverage90", 2)):  # fmt: skip
            yield _number(figures[name][key], digits)


def _not_run(missing: Sequence[Job]) -> str:
    counts: dict[str, int] = {}
    for job in missing:
        what = "left out in turn, random" if job.leave_one_out else job.references
        if job.metric == "energy":
            what = "energy from energies" if job.leave_one_out else "energy from latencies"
        elif job.group == "further":
            what = f"further devices, {job.references}"
        counts[f"`{job.model}` {what}"] = counts.get(f"`{job.model}` {what}", 0) + 1
    listed = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in counts.items())
    return f"**Not run yet, and missing below** (model, references, runs): {listed}.\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float | None]) -> float | None:
    stated = [value for value in values if value is not None]
    return float(np.mean(stated)) if stated else None


def _truth(devices: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(f["n"]),
            f"{f['n_tied_pairs']:,}",
            _number(f["kendall_ceiling"]),
            _number(f["kendall_retest"]),
        ]
        for name, f in devices.items()
    ]
    return (
        "Ties bound what Kendall's tau-b a prediction without ties can reach (ceiling); retest is "
        "tau-b between\nthe two of a pair of cells that run the same operators.\n\n"
        + _table(["device", "cells", "tied pairs", "ceiling", "retest"], rows)
    )


def _means(chosen: dict[str, Any]) -> str:
    rows = []
    for name, answer in chosen.items():
        figures = answer["devices"].values()
        errors = [f["median_ape_pct"] for f in figures if f["median_ape_pct"] is not None]
        rows.append([
            f"`{name}`",
            _number(answer["mean_spearman"]),
            _number(answer["mean_kendall"]),
            _number(_mean(errors), 1),
            _number(max(errors, default=None), 1),
            _number(_mean([f["coverage90"] for f in figures]), 2),
        ])  # fmt: skip
    header = ["model", "mean Spearman", "mean Kendall", "median APE %, mean",
              "median APE %, worst device", "coverage of 90 %"]  # fmt: skip
    return _table(header, rows)


def _by_device(chosen: dict[str, Any], unseen: Sequence[str]) -> Iterator[str]:
    kinds = (("Spearman", "spearman", 3), ("Kendall tau-b", "kendall", 3),
             ("Median absolute percentage error", "median_ape_pct", 1),
             ("Kendall tau-b, predictions rounded as the device rounds its readings",
              "kendall_rounded", 3),
             ("Coverage of the 90 % interval", "coverage90", 2))  # fmt: skip
    for title, key, digits in kinds:
        answers = [answer["devices"] for answer in chosen.values()]
        shown = [d for d in unseen if any(devices[d][key] is not None for devices in answers)]
        rows = [
            [f"`{name}`", *(_number(answer["devices"][d][key], digits) for d in shown)]
            for name, answer in chosen.items()
            if any(answer["devices"][d][key] is not None for d in shown)
        ]
        if rows:
            yield f"{title}:\n\n" + _table(["model", *shown], rows)


def _spread(models: Sequence[str], answers: dict[str, Any], unseen: Sequence[str]) -> str:
    rows = []
    for name in models:
        draws, left_out = (
            [
                answers[job.key]
                for s in range(N_DRAWS)
                if (job := Job(name, "random", s, loo)).key in answers
            ]
            for loo in (False, True)
        )
        rows.append([
            f"`{name}`",
            *(_spread_of([draw["devices"][d]["spearman"] for draw in draws]) for d in unseen),
            _spread_of([draw["mean_spearman"] for draw in draws]),
            _spread_of([draw["mean_kendall"] for draw in draws]),
            _spread_of([draw["mean_spearman"] for draw in left_out]),
            _spread_of([draw["mean_kendall"] for draw in left_out]),
            *(_spread_of([_mean_coverage(draw) for draw in runs], 2) for runs in (draws, left_out)),
        ])  # fmt: skip
    header = ["model", *unseen, "mean Spearman", "mean Kendall",
              "known, left out: Spearman", "known, left out: Kendall",
              "mean coverage of 90 %", "known, left out: coverage"]  # fmt: skip
    return _table(header, rows)


def _spread_of(values: Sequence[float | None], digits: int = 3) -> str:
    stated = [value for value in values if value is not None]
    if not stated:
        return "-"
    if len(stated) == 1:
        return _number(stated[0], digits)
    return f"{np.mean(stated):.{digits}f} ± {np.std(stated):.{digits}f}"


def _mean_coverage(answer: dict[str, Any]) -> float | None:
    return _mean([f["coverage90"] for f in answer["devices"].values()])


if __name__ == "__main__":
    sys.exit(main())
