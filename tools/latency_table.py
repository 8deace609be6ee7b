"""Every registered transfer model on every unseen device, as the page docs/latency-table.md.

    python tools/latency_table.py --data DIR [--models A,B] [--out FILE] [--state FILE]

Each figure is what `hwnas bench latency` prints for the same options. What was computed is kept in
the state file after every run, so that a killed command goes on where it was; it belongs to one
version of the code and is to be deleted when that changes. Cheap models are also judged on five
random draws of references, on the unseen devices and on the training devices left out in turn.
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
from hwnas_sdk.workflows.bench_search import HELP_TRAIN_DEVICES, HELP_UNSEEN_DEVICES

ROOT = Path(__file__).resolve().parents[1]
SETS: Final = ("ours", "paper")
CHEAP: Final = frozenset(
    {"bayes", "flops", "params", "additive", "linear-transfer", "nearest-device"}
)
N_DRAWS: Final = 5
INTRODUCTION = """\
# Latency of unseen devices: every model

Made by `python tools/latency_table.py --data DIR`; do not edit. Each figure is what
`hwnas bench latency --model MODEL --references SET --samples {samples}` prints.

{n_known} known devices, {samples} measured networks of each unseen one and nothing else of it;
judged are all live cells. How settings were chosen is told in [Predictors](predictors.md). The
models:

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

    @property
    def key(self) -> str:
        """Name in the state file."""
        return json.dumps(asdict(self), sort_keys=True)


def jobs(models: Sequence[str]) -> Iterator[Job]:
    """Everything the page needs, the cheap and the important first."""
    for model in sorted(models, key=lambda name: name not in CHEAP):
        for references in SETS:
            yield Job(model, references)
    for leave_one_out in (False, True):
        for model in models:
            if model in CHEAP:
                for seed in range(N_DRAWS):
                    yield Job(model, "random", seed, leave_one_out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--models", help="default: all registered ones")
    parser.add_argument("--train-devices", default=",".join(HELP_TRAIN_DEVICES))
    parser.add_argument("--devices", default=",".join(HELP_UNSEEN_DEVICES))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "latency-table.md")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "latency-table.json")
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing; the page says what is missing"
    )
    options = parser.parse_args(arguments)
    models = options.models.split(",") if options.models else list(TRANSFER_MODELS)
    known, unseen = options.train_devices.split(","), options.devices.split(",")
    question = {"known": known, "unseen": unseen, "samples": options.samples}
    state = BenchState(options.state, question)
    for job in () if options.page_only else jobs(models):
        state.compute(job.key, partial(bench, job, options, known, unseen))
    if not state.answers:
        sys.exit("nothing was run yet: leave out --page-only")
    with state.alone():
        write_text_atomic(options.out, page(models, question, state.answers))
    return 0


def bench(
    job: Job, options: argparse.Namespace, known: Sequence[str], unseen: Sequence[str]
) -> dict[str, Any]:
    """What the bench says of one job."""
    return run_bench_latency(
        options.data,
        train_devices=known,
        devices=known if job.leave_one_out else unseen,
        samples=options.samples,
        model=job.model,
        references=job.references,
        leave_one_out=job.leave_one_out,
        seed=job.seed,
    )


def page(models: Sequence[str], question: dict[str, Any], answers: dict[str, Any]) -> str:
    """The page as Markdown."""
    unseen: list[str] = question["unseen"]
    missing = [job for job in jobs(models) if job.key not in answers]
    some = next(iter(answers.values()))
    parts = [
        INTRODUCTION.format(
            samples=question["samples"],
            n_known=len(question["known"]),
            models="\n".join(f"- `{name}`: {TRANSFER_MODELS[name].summary}" for name in models),
        ),
        *([_not_run(missing)] if missing else []),
        "## The truth\n",
        _truth(some["devices"]),
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
    return "\n".join(parts).rstrip() + "\n"


def _not_run(missing: Sequence[Job]) -> str:
    counts: dict[str, int] = {}
    for job in missing:
        what = "left out in turn, random" if job.leave_one_out else job.references
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
             ("Coverage of the 90 % interval", "coverage90", 2))  # fmt: skip
    for title, key, digits in kinds:
        rows = [
            [f"`{name}`", *(_number(answer["devices"][d][key], digits) for d in unseen)]
            for name, answer in chosen.items()
            if any(answer["devices"][d][key] is not None for d in unseen)
        ]
        if rows:
            yield f"{title}:\n\n" + _table(["model", *unseen], rows)


def _spread(models: Sequence[str], answers: dict[str, Any], unseen: Sequence[str]) -> str:
    def cell(values: Sequence[float | None], digits: int = 3) -> str:
        stated = [value for value in values if value is not None]
        if not stated:
            return "-"
        return f"{np.mean(stated):.{digits}f} ± {np.std(stated):.{digits}f}"

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
            *(cell([draw["devices"][d]["spearman"] for draw in draws]) for d in unseen),
            cell([draw["mean_spearman"] for draw in draws]),
            cell([draw["mean_kendall"] for draw in draws]),
            cell([draw["mean_spearman"] for draw in left_out]),
            cell([draw["mean_kendall"] for draw in left_out]),
        ])  # fmt: skip
    header = ["model", *unseen, "mean Spearman", "mean Kendall",
              "known, left out: Spearman", "known, left out: Kendall"]  # fmt: skip
    return _table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
