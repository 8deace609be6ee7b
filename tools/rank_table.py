"""Everything `hwnas bench rank` says of the public tables, as docs/rank-table.md with its pictures.

    python tools/rank_table.py --data DIR [--parts A,B] [--seeds 5] [--page-only]

What was computed is kept in the state file after every run, so that a killed command goes on where
it was and two commands with other parts can share it; it belongs to one version of the code and is
to be deleted when that changes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from bench_state import BenchState

from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.workflows.bench_rank import MEANS, draw_rank, run_bench_rank
from hwnas_sdk.workflows.rank_protocol import LOSSES, RankBenchPlan
from hwnas_sdk.workflows.search_protocol import HELP_UNSEEN_DEVICES

ROOT = Path(__file__).resolve().parents[1]
IMAGES: Final = ROOT / "docs" / "img"
FEW: Final = ("titan_rtx_256", "raspi4")
"""Devices of the sweeps of the network, which takes most of a minute per training."""
TARGETS: Final = {"kendall": 0.68, "kendall_batch18": 0.75, "normalized_hv": 0.995}

INTRODUCTION = """\
# Ranking by one score: every figure

Made by `python tools/rank_table.py --data DIR`; do not edit. Each figure is what
`hwnas bench rank` prints for the options beside it; what the words mean is told in
[Pareto ranks](predictors-rank.md). NAS-Bench-201 on CIFAR-10, {train} labelled cells per device,
judged are all live ones. Many of these compute the same function as a labelled cell;
"new functions" is tau-b over the others. Ties of the truth are counted in the last column.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One call of the bench."""

    name: str
    plan: RankBenchPlan
    many_seeds: bool = False

    @property
    def command(self) -> str:
        """The command that prints it, but for --data."""
        plan, words = self.plan, []
        if plan.devices != HELP_UNSEEN_DEVICES:
            words.append(f"--devices {','.join(plan.devices)}")
        if plan.train != RankBenchPlan().train:
            words.append(f"--train {plan.train}")
        if plan.model == "network":
            words.append(f"--model network --loss {plan.loss}")
        if plan.batch_size is not None:
            words.append(f"--batch-size {plan.batch_size}")
        if plan.metrics != ("latency",):
            words.append(f"--objectives {','.join(('error', *plan.metrics))}")
        if plan.independent:
            words.append("--against independent")
        if plan.new_platform:
            words.append("--new-platform")
        if not self.many_seeds:
            words.append("--seeds 1")
        return " ".join(["hwnas bench rank", *words])


_SWEPT: Final = RankBenchPlan(devices=FEW, model="network")
PARTS: Final = (
    Part("expected rank", RankBenchPlan(independent=True), many_seeds=True),
    Part(
        "network",
        RankBenchPlan(model="network", independent=True, new_platform=True),
        many_seeds=True,
    ),
    *(Part(f"{n} labels", RankBenchPlan(train=n)) for n in (100, 200, 1000, 2000, 5000)),
    Part(
        "three objectives",
        RankBenchPlan(
            devices=("cifar10_edgegpu", "cifar10_eyeriss"),
            metrics=("latency", "energy"),
            independent=True,
        ),
    ),
    *(Part(f"loss {loss}", replace(_SWEPT, loss=loss)) for loss in LOSSES),
    *(
        Part(f"batches of {n}", replace(_SWEPT, batch_size=n))
        for n in (8, 12, 16, 20, 24)  # 18 is the loss' own row
    ),
)
CURVE: Final = tuple(part for part in PARTS if part.name.endswith(" labels"))
BATCHES: Final = tuple(part for part in PARTS if part.name.startswith("batches of "))
WITHIN: Final = "kendall_within18"
NEW: Final = "kendall_new_families"
KEYS: Final = ("kendall", NEW, "kendall_distinct", "kendall_batch18", "normalized_hv")
HEADS: Final = (
    "tau-b", "new functions", "distinct ranks", "in batches of 18", "hypervolume of the best 100",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--parts", help="names of parts, default: all")
    parser.add_argument(
        "--seeds", type=int, default=5, help="of the first two parts; others have one"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "rank-table.md")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "rank-table.json")
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing; the page says what is missing"
    )
    options = parser.parse_args(arguments)
    wanted = options.parts.split(",") if options.parts else [part.name for part in PARTS]
    unknown = set(wanted) - {part.name for part in PARTS}
    if unknown:
        sys.exit(f"no part is called {', '.join(sorted(unknown))}")
    state = BenchState(options.state, {"seeds": options.seeds})
    for part in () if options.page_only else PARTS:
        if part.name in wanted:
            plan = replace(part.plan, seeds=options.seeds if part.many_seeds else 1)
            state.compute(part.name, partial(run_bench_rank, options.data, plan))
    if not state.answers:
        sys.exit("nothing was run yet: leave out --page-only")
    with state.alone():
        write_text_atomic(options.out, page(state.answers, options.seeds))
    return 0


def page(answers: Mapping[str, Mapping[str, Any]], seeds: int) -> str:
    """The whole page."""
    lines = [INTRODUCTION.format(train=RankBenchPlan().train)]
    for part in PARTS[:2]:
        if part.name in answers:
            lines += _compared(part, answers[part.name], seeds if part.many_seeds else 1)
    lines += _sweep("How many labels", CURVE, answers, with_first=True)
    by_objectives = [part for part in PARTS if len(part.plan.metrics) > 1]
    lines += _sweep("Three objectives", by_objectives, answers)
    for part in by_objectives:
        if part.name in answers:
            lines += _devices(part, answers[part.name])
    lines += _sweep(
        "Losses of the network", [p for p in PARTS if p.name.startswith("loss ")], answers
    )
    lines += _sweep("Batch sizes of the network (listwise)", BATCHES, answers)
    missing = [part.name for part in PARTS if part.name not in answers]
    if missing:
        lines += [f"Not computed yet: {', '.join(missing)}.", ""]
    return "\n".join([*lines, *_pictures(answers)])


def _compared(part: Part, answer: Mapping[str, Any], seeds: int) -> list[str]:
    """A model beside independent predictors, per device and in the mean."""
    many = f"{seeds} seeds" if seeds > 1 else "one seed"
    lines = [f"## {part.name[0].upper()}{part.name[1:]}", "", f"`{part.command}`, {many}.", ""]
    means = [f"mean {_with_target(key, answer[f'mean_{key}'])} {head}"
             for key, head in zip(KEYS, HEADS, strict=True)]  # fmt: skip
    share = fmean(found["new_families_share"] for found in answer["devices"].values())
    lines += [
        "; ".join(means) + f". New functions are {share:.0%} of the judged cells. "
        f"Fitting one device took {answer['fit_seconds']:.0f} s, scoring all cells "
        f"{answer['score_seconds']:.2f} s, beside whatever else the machine did.",
        "",
    ]
    if answer.get("independent"):
        other = answer["independent"]
        text = (
            f"Independent predictors: tau-b {other['mean_kendall']:.3f}, over new functions "
            f"{other[f'mean_{NEW}']:.3f}, in batches "
            f"{other['mean_kendall_batch18']:.3f}, hypervolume {other['mean_normalized_hv']:.4f}. "
        )
        ahead, behind = (", ".join(answer[key]) for key in ("ahead_on", "not_ahead_on"))
        text += "Ahead of them on "
        text += f"{ahead or 'no device'}; not on {behind}." if behind else "all devices."
        lines += [text, ""]
    if "mean_kendall_within18" in answer:
        inside = (
            f"Asked for the ranks inside each batch of 18: {answer['mean_kendall_within18']:.3f}"
        )
        if answer.get("independent"):
            other = answer["independent"]["mean_kendall_within18"]
            inside += f", independent predictors sorted inside the batch {other:.3f}"
        lines += [f"{inside}.", ""]
    return [*lines, *_devices(part, answer)]


def _devices(part: Part, answer: Mapping[str, Any]) -> list[str]:
    plan = part.plan
    heads = ["device", *HEADS]
    inside = all(WITHIN in found for found in answer["devices"].values())
    heads += ["asked inside the batch"] if inside else []
    heads += (
        ["independent", "independent, new functions", "gain", "seeds ahead"]
        if plan.independent
        else []
    )
    heads += ["independent, inside the batch"] if plan.independent and inside else []
    heads += ["added in 5 epochs", "loses"] if plan.new_platform else []
    heads += ["fronts", "tied pairs of the truth"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for device, found in answer["devices"].items():
        sd = found.get("kendall_sd")
        cells = [device, f"{found['kendall']:.3f}" + (f" ({sd:.3f})" if sd else "")]
        cells += [f"{found[key]:.3f}" for key in KEYS[1:-1]] + [f"{found['normalized_hv']:.4f}"]
        cells += [f"{found[WITHIN]:.3f}"] if inside else []
        if plan.independent:
            cells += [f"{found['independent'][key]:.3f}" for key in ("kendall", NEW)]
            cells.append(f"{found['gain']:+.3f}")
            cells.append(str(found["seeds_ahead"]))
            cells += [f"{found['independent'][WITHIN]:.3f}"] if inside else []
        if plan.new_platform:
            cells += [f"{found['new_platform']['kendall']:.3f}",
                      f"{found['new_platform_loss']:.3f}"]  # fmt: skip
        cells += [f"{found['n_fronts']:,}", f"{found['n_tied_pairs']:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _sweep(
    title: str,
    parts: Sequence[Part],
    answers: Mapping[str, Mapping[str, Any]],
    *,
    with_first: bool = False,
) -> list[str]:
    rows = [(part.name, part, answers[part.name]) for part in parts if part.name in answers]
    if not rows:
        return []
    first = PARTS[0]
    if with_first and first.name in answers:
        rows.append((f"{first.plan.train} labels", first, answers[first.name]))
        rows.sort(key=lambda row: row[1].plan.train)
    lines = [f"## {title}", "", "| | " + " | ".join((*HEADS, "fit s", "command")) + " |"]
    lines.append("|---" * (len(HEADS) + 3) + "|")
    for name, part, answer in rows:
        cells = [name, *(f"{answer[f'mean_{key}']:.3f}" for key in KEYS[:-1])]
        cells += [f"{answer['mean_normalized_hv']:.4f}", f"{answer['fit_seconds']:.0f}"]
        lines.append("| " + " | ".join([*cells, f"`{part.command}`"]) + " |")
    return [*lines, ""]


def _with_target(key: str, value: float) -> str:
    target = TARGETS.get(key)
    shown = f"{value:.4f}" if key == "normalized_hv" else f"{value:.3f}"
    if target is None:
        return shown
    return f"{shown} (>= {target:g}{'' if value >= target else ', **missed**'})"


def _pictures(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if PARTS[0].name not in answers:
        return []
    whole = dict(answers[PARTS[0].name])
    for name, over, parts in (("curve", "train", CURVE), ("batch_sizes", "batch_size", BATCHES)):
        rows = [
            {over: getattr(part.plan, over), **{key: answers[part.name][key] for key in MEANS}}
            for part in parts
            if part.name in answers
        ]
        if rows:
            if name == "curve":
                rows.append({over: whole["train"], **{key: whole[key] for key in MEANS}})
            whole[name] = sorted(rows, key=lambda row: row[over])
    drawn = draw_rank(whole, IMAGES)
    text = {
        "rank-ablation": "Expected rank beside independent predictors",
        "rank-devices": "tau-b per device",
        "rank-curve": "Over the number of labels",
        "rank-batch-sizes": "Over the batch size of the network",
    }
    return [f"![{text[path.stem]}](img/{path.name})\n" for path in drawn]


if __name__ == "__main__":
    sys.exit(main())
