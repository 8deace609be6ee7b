"""`hwnas report`: one offline page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb


@click.command(short_help="Write one offline HTML page about a run.")
@click.argument("run", default="last")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("hwnas-report.html"),
    show_default=True,
    help="Where the page goes.",
)
@verb
def report(app: App, *, run: str, output: Path) -> None:
    """Write one offline HTML page about RUN (an id, the start of one, or 'last').

    'last' is the newest finished run that has a page.
    """
    from hwnas_sdk.workflows.report import resolve_run, write_run_report

    store = app.store(read_only=True)
    found = resolve_run(store, run)
    path = write_run_report(store, found.id, output)
    answer = {"report": str(path), "run": found.id}
    app.show(answer, lambda console: console.print(f"report: {path}", markup=False, soft_wrap=True))
