"""Every search method on every unseen device, as docs/search-table.md with its pictures.

    python tools/search_table.py --data DIR [--rows A,B] [--seeds 5] [--page-only]

Each figure is what `hwnas bench search` prints for the options beside it. What was computed is kept
in the state file after every run, so that a killed command goes on where it was and two commands
with other rows can share it; it belongs to one version of the code and is to be deleted when that
changes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from bench_state import BenchState

from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.report.search_plots import draw_curves, draw_radar, draw_rounds, table_of
from hwnas_sdk.workflows.bench_search import HELP_UNSEEN_DEVICES, run_bench_search
from hwnas_sdk.workflows.entrants import METHODS

ROOT = Path(__file__).resolve().parents[1]
IMAGES: Final = ROOT / "docs" / "img"
RADAR: Final = (
    "auto 3 rounds", "auto", "rank 500 accuracies", "nsga2", "modnas", "ofa", "random 24",
)  # fmt: skip
"""What the radar shows; with all of them nobody could tell the lines apart."""
ROUNDS: Final = "auto 3 rounds"
"""The row whose hypervolume is drawn round by round."""
SCHEMES: Final = ("mgd", "mean", "sequential", "sampled")
SCHEMES_TEXT: Final = (
    "Hypervolume of 24 proposals by the shipped predictors, mean over their 13 devices; one seed: "
    "`hwnas train hypernetwork --scheme ...`."
)
BOUNDS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

INTRODUCTION = """\
# Searching for unseen devices: every method

Made by `python tools/search_table.py --data DIR`; do not edit. Each figure is what
`hwnas bench search` prints for the options in its row: NAS-Bench-201 on CIFAR-10, 13 training
devices, {samples} measured latencies of the unseen device and as many accuracies as the row says,
nothing else; true errors and latencies of the candidates judge. Normalised hypervolume: 1 is the
true front. The spread is the standard deviation over the seeds, mean over the devices. Seconds are
wall time of these runs, beside whatever else the machine did.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One call of the bench."""

    name: str
    method: str
    accuracies: int = 100
    candidates: int = 24
    rounds: int = 1
    target: float | None = None

    @property
    def command(self) -> str:
        """Options of the command that prints it."""
        words = f"--method {self.method} --train-accuracies {self.accuracies}"
        words += f" --candidates {self.candidates}" if self.candidates != 24 else ""
        return words + (f" --rounds {self.rounds}" if self.rounds > 1 else "")


ROWS: Final = (
    Row("auto", "auto", target=0.995),
    Row("auto 3 rounds", "auto", rounds=3, target=0.999),
    Row("auto without active accuracies", "auto-stratified"),
    Row("modnas", "modnas", accuracies=500, target=0.985),
    Row("modnas as published", "modnas-look-up", accuracies=500),
    Row("nsga2", "nsga2", target=0.990),
    Row("nsga2 500 accuracies", "nsga2", accuracies=500),
    Row("rank 500 accuracies", "rank", accuracies=500, target=0.990),
    Row("local-search", "local-search"),
    Row("mo-rea", "mo-rea"),
    Row("lemonade", "lemonade"),
    Row("brp-nas", "brp-nas"),
    Row("gates", "gates"),
    Row("ofa", "ofa"),
    Row("metad2a", "metad2a"),
    Row("rhpn", "rhpn"),
    Row("random 500", "random", candidates=500),
    Row("random 24", "random"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--rows", help="names of rows, default: all")
    parser.add_argument("--devices", default=",".join(HELP_UNSEEN_DEVICES))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "search-table.md")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "search-table.json")
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing; the page says what is missing"
    )
    options = parser.parse_args(arguments)
    devices = options.devices.split(",")
    question = {"devices": devices, "samples": options.samples, "seeds": options.seeds}
    state = BenchState(options.state, question)
    wanted = options.rows.split(",") if options.rows else [row.name for row in ROWS]
    unknown = set(wanted) - {row.name for row in ROWS} - {"ablations"}
    if unknown:
        sys.exit(f"no row is called {', '.join(sorted(unknown))}")
    for row in () if options.page_only else ROWS:
        if row.name in wanted:
            state.compute(row.name, partial(bench, row, options, devices))
    if not options.page_only and (options.rows is None or "ablations" in wanted):
        for name, changes in trials():
            state.compute(name, partial(ablate, changes))
    with state.alone():
        write_text_atomic(options.out, page(state, devices))
    return 0


def bench(row: Row, options: argparse.Namespace, devices: Sequence[str]) -> dict[str, Any]:
    """What the bench says for one row."""
    return run_bench_search(
        options.data,
        method=row.method,
        devices=devices,
        train_accuracies=row.accuracies,
        samples=options.samples,
        candidates=row.candidates,
        rounds=row.rounds,
        seeds=options.seeds,
        plots=IMAGES if row.name in ("auto", "modnas") else None,
    )


# --- modnas: ablations on the shipped predictors ------------------------------------------------


def trials() -> list[tuple[str, dict[str, Any]]]:
    """Update schemes over epochs, and user priors, by name."""
    named = [(f"scheme {scheme}", {"scheme": scheme}) for scheme in SCHEMES]
    return named + [(f"bound {bound:g}", {"bound": bound, "epochs": 20}) for bound in BOUNDS]


def ablate(changes: Mapping[str, Any]) -> dict[str, Any]:
    """One training from the shipped predictors."""
    from hwnas_sdk.workflows.train_hypernetwork import train_space_hypernetwork

    with tempfile.TemporaryDirectory() as folder:
        answer = train_space_hypernetwork(Path(folder) / "net.safetensors", **changes)
    return {"history": answer["history"], "duration_s": answer["duration_s"]}


# --- the page -----------------------------------------------------------------------------------


def page(state: BenchState, devices: Sequence[str]) -> str:
    """The whole page."""
    answers = {row.name: state.answers[row.name] for row in ROWS if row.name in state.answers}
    samples, seeds = state.question["samples"], state.question["seeds"]
    lines = [INTRODUCTION.format(samples=samples), f"{seeds} seeds.", ""]
    heads = ["method", "mean", "spread", *devices, "distinct", "search s", "ask s", "train s"]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in ROWS:
        answer = answers.get(row.name)
        if answer is not None:
            lines.append(_line(row, answer, devices))
    missing = [row.name for row in ROWS if row.name not in answers]
    if missing:
        lines += ["", f"Not computed yet: {', '.join(missing)}."]
    lines += ["", "What they are and how each row is printed:", ""]
    for row in ROWS:
        lines.append(
            f"- **{row.name}**: {METHODS[row.method].summary}. `hwnas bench search {row.command}`"
        )
    if answers and len(devices) >= 3:
        shown = {name: answers[name] for name in RADAR if name in answers} or answers
        draw_radar(table_of(shown), path=IMAGES / "search-radar.png")
        lines += ["", "![Normalised hypervolume by method and device](img/search-radar.png)"]
    several = answers.get(ROUNDS)
    # Answers of versions that kept no figures of single rounds have no such picture.
    if several and all("normalized_hv_by_round" in a for a in several["devices"].values()):
        draw_rounds(several, path=IMAGES / "search-rounds.png")
        lines += ["", f"![Hypervolume over the candidates, {ROUNDS}](img/search-rounds.png)"]
    for name in ("auto", "modnas"):
        if name in answers:
            lines += ["", f"![Fronts of {name}, seed 0](img/search-{name}-fronts.png)"]
    return "\n".join([*lines, *_ablations(state.answers)]) + "\n"


def _line(row: Row, answer: Mapping[str, Any], devices: Sequence[str]) -> str:
    of = answer["devices"]
    mean = f"{answer['mean_normalized_hv']:.4f}"
    if row.target is not None:
        met = answer["mean_normalized_hv"] >= row.target
        mean += f" (>= {row.target:g}{'' if met else ', **missed**'})"
    spreads = [of[d]["normalized_hv_sd"] for d in devices if of[d]["normalized_hv_sd"] is not None]
    cells = [row.name, mean, f"{np.mean(spreads):.4f}" if spreads else "-"]
    cells += [f"{of[d]['normalized_hv']:.4f}" for d in devices]
    cells += [
        f"{np.mean([of[d]['n_distinct'] for d in devices]):.0f}",
        f"{np.mean([of[d]['search_seconds'] for d in devices]):.2f}",
        f"{np.mean([of[d]['ask_seconds'] for d in devices]):.1f}",
        f"{np.mean([of[d]['train_seconds'] for d in devices]):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _ablations(done: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    curves = {
        scheme: [(h["epoch"], h["predicted_normalized_hv"]) for h in done[key]["history"]]
        for scheme in SCHEMES
        if (key := f"scheme {scheme}") in done
    }
    if curves:
        draw_curves(
            curves, x="epoch of 50 steps", y="predicted normalised hypervolume",
            path=IMAGES / "search-schemes.png",
        )  # fmt: skip
        lines += [
            "",
            "## MODNAS: how gradients of devices are joined",
            "",
            SCHEMES_TEXT,
            "",
            "![Hypervolume over epochs](img/search-schemes.png)",
        ]
    bounds = [
        (bound, done[key]["history"][-1]) for bound in BOUNDS if (key := f"bound {bound:g}") in done
    ]
    if bounds:
        lines += [
            "",
            "## MODNAS: effect of the user prior",
            "",
            "A bound on the scaled latency; below it latency is not minimised any further.",
            "",
            "| bound | hypervolume | mean scaled latency | mean scaled error |",
            "|---|---|---|---|",
        ]
        for bound, last in bounds:
            lines.append(
                f"| {bound:g} | {last['predicted_normalized_hv']:.4f} | "
                f"{last['mean_scaled_latency']:.3f} | {last['mean_scaled_error']:.4f} |"
            )
        draw_curves(
            {"latency": [(b, h["mean_scaled_latency"]) for b, h in bounds],
             "error": [(b, h["mean_scaled_error"]) for b, h in bounds]},
            x="bound on the scaled latency", y="mean of 24 proposals, scaled to [0, 1]",
            path=IMAGES / "search-prior.png",
        )  # fmt: skip
        lines += ["", "![Effect of the user prior](img/search-prior.png)"]
    return lines


if __name__ == "__main__":
    sys.exit(main())
