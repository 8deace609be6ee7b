"""`hwnas store`: look into the measurements, check them, write them out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


@click.group(short_help="Inspect, check and export the measurements.")
def store() -> None:
    """Inspect, check and export the measurements."""


@store.command(short_help="Show what the store holds.")
@verb
def info(app: App) -> None:
    """Show what the store holds: schema, rows of each kind, size; and the artifacts' size."""
    from hwnas_sdk._resources import artifact_cache_path
    from hwnas_sdk.export.cache_limit import limit_bytes, used_bytes

    content = {
        **app.store(read_only=True).info(),
        "artifact_bytes": used_bytes(artifact_cache_path()),
        "artifact_limit_bytes": limit_bytes(),
    }

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        console.print(facts(content))

    app.show(content, draw)


@store.command(short_help="Look for damage; exit 6 when there is some.")
@verb
def check(app: App) -> None:
    """Look for damage: pages, references, sample blobs, values. Exit 6 when there is some."""
    problems = app.store(read_only=True).check(on_event=app.progress)

    def draw(console: Console) -> None:
        for problem in problems:
            console.print(f"problem: {problem}", markup=False)
        if not problems:
            console.print(f"{app.store_path}: no problems", markup=False)

    app.show({"store": str(app.store_path), "ok": not problems, "problems": problems}, draw)
    if problems:
        click.get_current_context().exit(6)


@store.command(short_help="Write all measurements as Parquet or CSV.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["parquet", "csv"]),
    help="Kind of file.  [default: from the ending of FILE]",
)
@verb
def export(app: App, *, file: Path, file_format: str | None) -> None:
    """Write all measurements to FILE, one row each, as Parquet or CSV.

    Units are in the column names; origin, machine and flags are columns, so that a simulated or
    invalid number cannot be taken for a measured one.
    """
    chosen = file_format or file.suffix.removeprefix(".").lower()
    if chosen not in {"parquet", "csv"}:
        raise ConfigError(
            f"cannot tell the format of {file}",
            code="unknown_format",
            hint="end the name in .parquet or .csv, or give --format",
        )
    from hwnas_sdk.store.export import export_csv, export_parquet

    opened = app.store(read_only=True)
    n_rows = (export_parquet if chosen == "parquet" else export_csv)(opened, file)
    answer = {"path": str(file), "format": chosen, "rows": n_rows}
    app.show(
        answer,
        lambda console: console.print(f"{n_rows} measurements written to {file}", markup=False),
    )
