"""`hwnas compare`: two runs, boards or OS versions side by side."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import MeasurementError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.workflows.changes import RunFacts
    from hwnas_sdk.workflows.compare import Comparison


@click.command(short_help="Compare two runs, boards or OS versions.")
@click.argument("first")
@click.argument("second", required=False)
@click.option(
    "--fail-above",
    type=click.FloatRange(min=0),
    metavar="PCT",
    help="Exit 5 when a network got slower by more than PCT percent, beyond both intervals.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page that shows both runs.",
)
@verb
def compare(
    app: App, *, first: str, second: str | None, fail_above: float | None, output: Path | None
) -> None:
    """Compare the networks that FIRST and SECOND both measured, and say what else changed.

    Each is a run or a device; a device stands for its newest profile. With one device alone, its
    two newest profiles are compared: the board before and after an update of its system or runtime.

    A change counts as a regression when it is larger than both 95 % confidence intervals together.
    """
    from hwnas_sdk.workflows.compare import compare as compare_in
    from hwnas_sdk.workflows.compare import write_comparison

    app.check_output(output)
    found = compare_in(app.store(read_only=True), first, second)
    if output is not None:
        words = ["hwnas", "compare", found.first.run.id, found.second.run.id]
        words += [] if fail_above is None else ["--fail-above", f"{fail_above:g}"]
        output = write_comparison(found, output, limit_pct=fail_above, command=shlex.join(words))
    app.show(_document(found, output), lambda console: _draw(console, found))
    worst = found.worst_regression_pct
    if fail_above is not None and (worst is None or worst > fail_above):
        how = "no network was measured in both" if worst is None else f"{worst:.1f} % slower"
        raise MeasurementError(
            f"regression above {fail_above:g} %: {how}",
            device_id=found.second.spec.name,
            code="regression",
            hint="see the table above; raise --fail-above if this is expected",
        )


def _document(found: Comparison, output: Path | None) -> dict[str, Any]:
    return {
        "first": found.first.run.id,
        "second": found.second.run.id,
        "first_device": found.first.spec.id,
        "second_device": found.second.spec.id,
        "pairs": [
            {"arch": p.arch, "first_ms": p.a_ms, "second_ms": p.b_ms,
             "first_ci95_ms": p.a_ci95_ms, "second_ci95_ms": p.b_ci95_ms,
             "change_pct": p.change_pct, "clear": p.is_clear}
            for p in found.pairs
        ],
        "worst_regression_pct": found.worst_regression_pct,
        "median_change_pct": found.median_change_pct,
        "changed": found.changed,
        "not_recorded": found.not_recorded,
        "warnings": found.warnings,
        "report": None if output is None else str(output),
    }  # fmt: skip


def _draw(console: Console, found: Comparison) -> None:
    from hwnas_sdk.cli.lab import shown_arch
    from hwnas_sdk.cli.render import table

    rows = [
        (shown_arch(p.arch, console), p.a_ms, p.b_ms, p.change_pct, "clear" if p.is_clear else "")
        for p in found.pairs
    ]
    title = f"{_called(found.first)} and {_called(found.second)}"
    console.print(table(("network", "first ms", "second ms", "change %", ""), rows, title=title))
    if found.changed:
        rows_of = [
            (row.what, row.before or "not recorded", row.after or "not recorded")
            for row in found.changed
        ]
        title = "what changed between the runs"
        console.print(table(("", "first", "second"), rows_of, title=title))
    else:
        console.print("nothing that was recorded changed between the runs", markup=False)
    if found.not_recorded:
        console.print(f"neither run recorded: {', '.join(found.not_recorded)}", markup=False)
    for warning in found.warnings:
        console.print(f"note: {warning}", markup=False)
    worst, middle = found.worst_regression_pct, found.median_change_pct
    shown = "-" if worst is None else f"{worst:.1f} %"
    median = "" if middle is None else f"median change: {middle:+.1f} %, "
    console.print(f"{median}worst regression: {shown}", markup=False)


def _called(facts: RunFacts) -> str:
    """How a person knows a run."""
    run = facts.run
    return f"{facts.spec.name}, {run.kind} of {run.created_at[:16].replace('T', ' ')} ({run.id})"
