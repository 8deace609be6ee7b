"""`hwnas devices`: the boards this host knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.devices_board_cmd import clean, setup, trust
from hwnas_sdk.cli.devices_rows import (
    COLUMNS,
    device_row,
    draw_device,
    entry_of,
    next_steps,
    remember,
)
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import DeviceError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.types import DeviceSpec

# A board that answers with one of these is there; what is missing is the next step.
_NOT_READY = {
    "host_key_unknown": ("hwnas devices trust {name}", "hwnas devices setup {name}"),
    "python_missing": ("hwnas devices setup {name}",),
}


@click.group(short_help="Add, list, probe and remove boards.")
def devices() -> None:
    """Add, list, probe and remove boards.

    A board has a NAME of your choice and a URI that says how to reach it: 'local:' is this
    machine, 'ssh://[user@]host[:port]' a board behind SSH, 'adb://SERIAL' one on a cable,
    'replay://TABLE.parquet#COLUMN' answers from a table of published measurements. The board
    'local' is always there.
    """


@devices.command(short_help="Add a board, once it has answered.")
@click.argument("name")
@click.argument("uri")
@click.option(
    "--no-probe", is_flag=True, help="Add the board without asking it anything (it may be off)."
)
@click.option(
    "--runner",
    metavar="PATH",
    help="For a board without Python: a program made for it that runs networks "
    "(onnxruntime_perf_test, or LiteRT's benchmark_model).",
)
@verb
def add(app: App, *, name: str, uri: str, no_probe: bool, runner: str | None) -> None:
    """Add the board NAME at URI, once it has answered. A board that does not is not added.

    One that answers but is not trusted yet, or has no runtime, is added; the answer says what to do
    next.
    """
    if runner is not None:
        from hwnas_sdk.devices.command_open import with_runner

        uri = with_runner(uri, runner)
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
    except DeviceError as exc:
        if exc.code not in _NOT_READY:
            if not was_there:
                inventory.remove(name)
            raise
        row = device_row(name, uri, None) | _not_ready(name, exc)
    except BaseException:
        if not was_there:
            inventory.remove(name)
        raise
    else:
        remember(app, session)
        row = device_row(name, uri, session.spec)
        row |= {"ready": bool(session.spec.runtimes) or not session.needs_artifacts}
        row["next"] = [] if not session.needs_artifacts else next_steps(name, session.spec)
    app.show(row, lambda console: draw_device(console, row))


def _not_ready(name: str, exc: DeviceError) -> dict[str, Any]:
    steps = [step.format(name=name) for step in _NOT_READY[exc.code]]
    return {"ready": False, "reason": exc.code, "message": exc.message, "next": steps}


@devices.command("list", short_help="List the boards and what is known of them.")
@verb
def list_devices(app: App) -> None:
    """List the boards and what is known of them since they were last probed."""
    known: dict[str, DeviceSpec] = {}
    if app.store_path.is_file():
        known = {spec.name: spec for spec in app.store(read_only=True).devices()}
    rows = [
        device_row(entry.name, entry.uri, known.get(entry.name)) for entry in app.inventory().list()
    ]

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        shown = ("name", "uri", *COLUMNS[:-1])
        console.print(table(shown, [[row[key] for key in shown] for row in rows]))

    app.show({"devices": rows}, draw)


@devices.command(short_help="Ask a board what it is and how it is.")
@click.argument("name")
@verb
def probe(app: App, *, name: str) -> None:
    """Ask the board NAME (or a device URI) what it is, what it can run and how quiet it is."""
    session = app.session(name)
    found = session.probe()
    remember(app, session)
    row = device_row(name, session.spec.uri, session.spec)
    row |= {key: found.get(key) for key in ("environment", "power", "runtimes", "quiet")}
    row["runtimes"] = dict(session.spec.runtimes)
    app.show(row, lambda console: draw_device(console, row))


@devices.command(short_help="Forget a board.")
@click.argument("name")
@verb
def remove(app: App, *, name: str) -> None:
    """Forget the board NAME and its host key. Its measurements stay in the store.

    What lies on the board stays there: 'hwnas devices clean NAME --all' first removes that.
    """
    inventory = app.inventory()
    _, uri = entry_of(app, name)
    inventory.remove(name)
    n_keys = 0
    if uri.scheme == "ssh":
        from hwnas_sdk.devices.known_hosts import forget, host_of
        from hwnas_sdk.devices.uri import DeviceUri

        others = [DeviceUri.parse(entry.uri) for entry in inventory.list()]
        hosts = {host_of(other) for other in others if other.scheme == "ssh"}
        n_keys = forget(host_of(uri)) if host_of(uri) not in hosts else 0
    app.show(
        {"name": name, "removed": True, "forgotten_keys": n_keys},
        lambda console: console.print(f"{name} removed", markup=False),
    )


for _verb in (trust, setup, clean):
    devices.add_command(_verb)
