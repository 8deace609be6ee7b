"""`hwnas doctor`: is everything here and on the boards as it should be, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
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

    for name, run in (
        ("python", checks.check_python),
        ("packages", checks.check_packages),
        ("store", lambda: checks.check_store(app.store_path)),
        ("cache", lambda: checks.check_cache(artifact_cache_path())),
        ("agent", checks.check_agent),
        ("runtime", checks.check_runtime),
        ("report", checks.check_report),
        ("virtualisation", checks_machine.check_virtualisation),
        ("cpu governor", checks_machine.check_governor),
        ("priority", checks_machine.check_priority),
        ("load", checks_machine.check_load),
        ("power sensor", checks_machine.check_power),
        ("clock", checks_machine.check_clock),
    ):
        yield from checks.guarded(name, partial(_alone, run))
    yield from _run_board_checks(app, device_names)


def _alone(run: Callable[[], Check]) -> list[Check]:
    return [run()]


def _run_board_checks(app: App, device_names: tuple[str, ...]) -> Iterator[Check]:
    from hwnas_sdk.cli import checks
    from hwnas_sdk.cli.checks_board import EXIT_BOARD, check_board

    names = device_names
    if not names:
        try:
            names = tuple(entry.name for entry in app.inventory().list())
        except HwnasError as exc:
            yield checks.Check(
                name="inventory",
                ok=False,
                detail=exc.message,
                fix=exc.hint,
                exit_code=exc.exit_code,
            )
            return
    for name in names:
        run = partial(check_board, app, name)
        yield from checks.guarded(f"board {name}", run, exit_code=EXIT_BOARD)


def _level(check: Check) -> str:
    if check.ok:
        return "ok"
    return "fail" if check.exit_code else "note"


def _draw(console: Console, checks: list[Check]) -> None:
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "fail": "bold red"}
    for check in checks:
        level = _level(check)
        texts = [Text.assemble((f"{check.name}: ", "bold"), check.detail)]
        if check.fix:
            texts.append(Text(f"fix: {check.fix}"))
        lines = [line for text in texts for line in text.wrap(console, console.width - 6)]
        for i, line in enumerate(lines):
            mark = (f"{level:6}", styles[level]) if i == 0 else " " * 6
            console.print(Text.assemble(mark, line))
