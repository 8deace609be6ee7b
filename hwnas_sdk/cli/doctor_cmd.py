"""`hwnas doctor`: is everything here and on the boards as it should be, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import HwnasError
from hwnas_sdk.core.events import Event

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.cli.checks import Check


@click.command(short_help="Check this machine and each board; print the fixes.")
@click.option(
    "--device",
    "device_names",
    multiple=True,
    metavar="NAME",
    help="Check this board only; may be given several times.  [default: all of the inventory]",
)
@verb
def doctor(app: App, *, device_names: tuple[str, ...]) -> None:
    """Check this machine and each board, and print the fix beside each finding.

    Exit code: 4 when a board fails; 3 or 6 when something this machine needs is broken; else 0.
    A finding marked 'note' disturbs measurements but breaks nothing.
    """
    from hwnas_sdk.cli.checks import worst_exit_code

    checks = []
    for check in _run_checks(app, device_names):
        checks.append(check)
        app.progress(Event("doctor", len(checks), message=check.name))
    answer = {
        "checks": [
            {key: value for key, value in asdict(check).items() if key != "exit_code"}
            | {"level": _level(check)}
            for check in checks
        ]
    }
    app.show(answer, lambda console: _draw(console, checks))
    click.get_current_context().exit(worst_exit_code(checks))


def _run_checks(app: App, device_names: tuple[str, ...]) -> Iterator[Check]:
    from hwnas_sdk._resources import artifact_cache_path
    from hwnas_sdk.cli import checks, checks_machine

    yield checks.check_python()
    yield checks.check_packages()
    yield checks.check_store(app.store_path)
    yield checks.check_cache(artifact_cache_path())
    yield checks.check_agent()
    yield checks.check_runtime()
    yield checks.check_report()
    yield checks_machine.check_virtualisation()
    yield checks_machine.check_governor()
    yield checks_machine.check_priority()
    yield checks_machine.check_load()
    yield checks_machine.check_power()
    yield checks_machine.check_clock()
    yield from _run_board_checks(app, device_names)


def _run_board_checks(app: App, device_names: tuple[str, ...]) -> Iterator[Check]:
    from hwnas_sdk.cli.checks import Check
    from hwnas_sdk.cli.checks_board import check_board

    names = device_names
    if not names:
        try:
            names = tuple(entry.name for entry in app.inventory().list())
        except HwnasError as exc:
            yield Check(
                name="inventory",
                ok=False,
                detail=exc.message,
                fix=exc.hint,
                exit_code=exc.exit_code,
            )
            return
    for name in names:
        yield from check_board(app, name)


def _level(check: Check) -> str:
    if check.ok:
        return "ok"
    return "fail" if check.exit_code else "note"


def _draw(console: Console, checks: list[Check]) -> None:
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "fail": "bold red"}
    for check in checks:
        level = _level(check)
        line = Text.assemble(
            (f"{level:4}", styles[level]), "  ", (f"{check.name}: ", "bold"), check.detail
        )
        console.print(line)
        if check.fix:
            console.print(Text(f"      fix: {check.fix}"))
