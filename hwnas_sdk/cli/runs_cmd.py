"""`hwnas runs`: what was run, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb

if TYPE_CHECKING:
    from rich.console import Console


@click.group(short_help="List what was run.")
def runs() -> None:
    """List what was run."""


@runs.command("list", short_help="List runs, newest first.")
@click.option("--kind", metavar="KIND", help="Only runs of this kind: measure, profile, loop, ...")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most this many, the newest.",
)
@verb
def list_runs(app: App, *, kind: str | None, limit: int) -> None:
    """List runs, newest first.

    'hwnas report' and 'hwnas compare' take the id or a unique start of it.
    """
    store = app.store(read_only=True)
    newest = store.runs(kind)[::-1][:limit]
    rows = [
        {
            "id": run.id,
            "kind": run.kind,
            "created_at": run.created_at,
            "finished_at": run.finished_at,
            "seed": run.seed,
            "n_measurements": len(store.measurements(run_id=run.id)),
        }
        for run in newest
    ]

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        console.print(
            table(
                ["run", "kind", "started", "finished", "measurements"],
                [
                    [
                        row["id"],
                        row["kind"],
                        str(row["created_at"])[:19],
                        str(row["finished_at"] or "not yet")[:19],
                        row["n_measurements"],
                    ]
                    for row in rows
                ],
            )
        )

    app.show({"runs": rows}, draw)
