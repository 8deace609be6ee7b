"""`hwnas compare`: two runs, boards or OS versions side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import MeasurementError

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Compare two runs, boards or OS versions.")
@click.argument("first")
@click.argument("second")
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
    app: App, *, first: str, second: str, fail_above: float | None, output: Path | None
) -> None:
    """Compare the networks that runs FIRST and SECOND both measured.

    A change counts as a regression when it is larger than both 95 % confidence intervals together.
    """
    from hwnas_sdk.workflows.report import (
        compare_runs,
        resolve_run,
        worst_regression_pct,
        write_comparison,
    )

    app.check_output(output)
    store = app.store(read_only=True)
    pairs = compare_runs(store, first, second)
    worst = worst_regression_pct(pairs)
    if output is not None:
        output = write_comparison(store, first, second, output)
    answer = {
        "first": resolve_run(store, first).id,
        "second": resolve_run(store, second).id,
        "pairs": [
            {"arch": p.arch, "first_ms": p.a_ms, "second_ms": p.b_ms,
             "first_ci95_ms": p.a_ci95_ms, "second_ci95_ms": p.b_ci95_ms,
             "change_pct": p.change_pct, "clear": p.is_clear}
            for p in pairs
        ],
        "worst_regression_pct": worst,
        "report": None if output is None else str(output),
    }  # fmt: skip

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        rows = [
            (p.arch, p.a_ms, p.b_ms, p.change_pct, "clear" if p.is_clear else "") for p in pairs
        ]
        console.print(table(("network", "first ms", "second ms", "change %", ""), rows))
        shown = "-" if worst is None else f"{worst:.1f} %"
        console.print(f"worst regression: {shown}", markup=False)

    app.show(answer, draw)
    if fail_above is not None and (worst is None or worst > fail_above):
        found = "no network was measured in both" if worst is None else f"{worst:.1f} % slower"
        raise MeasurementError(
            f"regression above {fail_above:g} %: {found}",
            code="regression",
            hint="see the table above; raise --fail-above if this is expected",
        )
