"""`hwnas devices`: the boards this host knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.types import DeviceSpec
    from hwnas_sdk.devices.session import DeviceSession

_COLUMNS = (
    "family",
    "soc",
    "cores",
    "memory_mib",
    "machine",
    "runtimes",
    "power_source",
    "power_reason",
)


@click.group(short_help="Add, list, probe and remove boards.")
def devices() -> None:
    """Add, list, probe and remove boards.

    A board has a NAME of your choice and a URI that says how to reach it: 'local:' is this
    machine, 'replay://TABLE.parquet#COLUMN' answers from a table of published measurements. The
    board 'local' is always there.
    """


@devices.command(short_help="Add a board, once it has answered.")
@click.argument("name")
@click.argument("uri")
@click.option(
    "--no-probe", is_flag=True, help="Add the board without asking it anything (it may be off)."
)
@verb
def add(app: App, *, name: str, uri: str, no_probe: bool) -> None:
    """Add the board NAME at URI, once it has answered. A board that does not is not added."""
    inventory = app.inventory()
    was_there = any(entry.name == name for entry in inventory.list())
    uri = inventory.add(name, uri).uri
    if no_probe:
        app.show(
            {"name": name, "uri": uri},
            lambda console: console.print(f"{name} added, not probed", markup=False),
        )
        return
    try:
        session = app.session(name)
    except BaseException:
        if not was_there:
            inventory.remove(name)
        raise
    _remember(app, session)
    row = _row(name, uri, session.spec)
    app.show(row, lambda console: _draw_device(console, row))


@devices.command("list", short_help="List the boards and what is known of them.")
@verb
def list_devices(app: App) -> None:
    """List the boards and what is known of them since they were last probed."""
    known: dict[str, DeviceSpec] = {}
    if app.store_path.is_file():
        known = {spec.name: spec for spec in app.store(read_only=True).devices()}
    rows = [_row(entry.name, entry.uri, known.get(entry.name)) for entry in app.inventory().list()]

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        shown = ("name", "uri", *_COLUMNS[:-1])
        console.print(table(shown, [[row[key] for key in shown] for row in rows]))

    app.show({"devices": rows}, draw)


@devices.command(short_help="Ask a board what it is and how it is.")
@click.argument("name")
@verb
def probe(app: App, *, name: str) -> None:
    """Ask the board NAME (or a device URI) what it is, what it can run and how quiet it is."""
    session = app.session(name)
    found = session.probe()
    _remember(app, session)
    row = _row(name, session.spec.uri, session.spec)
    row |= {key: found.get(key) for key in ("environment", "power", "runtimes", "quiet")}
    row["runtimes"] = dict(session.spec.runtimes)
    app.show(row, lambda console: _draw_device(console, row))


@devices.command(short_help="Forget a board.")
@click.argument("name")
@verb
def remove(app: App, *, name: str) -> None:
    """Forget the board NAME. Its measurements stay in the store."""
    app.inventory().remove(name)
    app.show(
        {"name": name, "removed": True},
        lambda console: console.print(f"{name} removed", markup=False),
    )


@devices.command(short_help="Delete pushed networks from a board.")
@click.argument("name")
@verb
def clean(app: App, *, name: str) -> None:
    """Delete the networks that were pushed to the board NAME; they are pushed again when needed.

    Waits while the board is measuring. Journals of jobs that are not collected yet stay.
    """
    n_removed = app.session(name).clean(frozenset())
    app.show(
        {"name": name, "removed_files": n_removed},
        lambda console: console.print(f"{name}: {n_removed} files removed", markup=False),
    )


def _remember(app: App, session: DeviceSession) -> None:
    """Keep what the board said, for `devices list`."""
    app.store().put_device(session.spec)


def _row(name: str, uri: str, spec: DeviceSpec | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "uri": uri, "id": spec.id if spec else None}
    row |= {key: getattr(spec, key, None) for key in _COLUMNS}
    row["memory_mib"] = row["memory_mib"] or None  # a table has none
    row["quiet"] = spec.details.get("quiet") if spec else None
    return row


def _draw_device(console: Console, row: Mapping[str, Any]) -> None:
    from hwnas_sdk.cli.render import facts

    shown = dict(row)
    power = shown.pop("power", None) or {}
    reason = shown.pop("power_reason", None)
    if shown["power_source"] is None:
        texts = [reason, power.get("detail"), power.get("hint")]
        shown["power_source"] = "; ".join(["none", *(str(text) for text in texts if text)])
    environment = shown.pop("environment", None) or {}
    shown["environment"] = {key: value for key, value in environment.items() if value is not None}
    console.print(facts({key: value for key, value in shown.items() if value not in (None, {})}))
