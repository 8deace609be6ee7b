"""Options that several verbs share, and the wrapper every verb has."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hwnas_sdk.cli.context import App

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options every verb has, and an `App` as first argument.

    While the verb runs, stray prints of libraries go to stderr: stdout carries the answer only.
    Put it directly above the function, below the verb's own options.
    """

    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document on stdout and nothing else there.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="No progress; errors only.")
    @click.option(
        "-v", "--verbose", count=True, help="Log what happens; -vv also shows tracebacks."
    )
    @click.option(
        "--db",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Measurement store.  [default: store.sqlite in HWNAS_HOME, the per-user data folder]",
    )
    @functools.wraps(function)
    def wrapper(
        *,
        as_json: bool,
        quiet: bool,
        verbose: int,
        db: Path | None,
        **kwargs: Any,
    ) -> None:
        app = click.get_current_context().ensure_object(App)
        app.configure(as_json=as_json, quiet=quiet, verbosity=verbose, db=db)
        with contextlib.redirect_stdout(sys.stderr):
            function(app, **kwargs)

    return wrapper


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Option callback: ``A,B,C`` as a tuple; blanks around the names do not count.

    Raises: click.BadParameter for an empty or doubled name.
    """
    if value is None:
        return None
    parts = tuple(part.strip() for part in value.split(","))
    if not all(parts):
        raise click.BadParameter(f"{value!r} has an empty name", ctx, param)
    if len(set(parts)) != len(parts):
        raise click.BadParameter(f"{value!r} names something twice", ctx, param)
    return parts


def seed_option(default: int = 0) -> Callable[[FC], FC]:
    """``--seed INT``."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        help="Root of all randomness; the same seed gives the same result.",
    )


def device_option(default: str | None = "local") -> Callable[[FC], FC]:
    """``--device NAME``: a board of the inventory or a device URI; None makes it required."""
    return click.option(
        "--device",
        default=default,
        required=default is None,
        show_default=default is not None,
        metavar="NAME",
        help="Board of the inventory (see 'hwnas devices list') or a device URI.",
    )


def dry_run_option() -> Callable[[FC], FC]:
    """``--dry-run``."""
    return click.option(
        "--dry-run", is_flag=True, help="Print the plan and what it would cost; do nothing."
    )


def folded_option(*, default: bool) -> Callable[[FC], FC]:
    """``--folded/--unfolded``."""
    return click.option(
        "--folded/--unfolded",
        default=default,
        show_default=True,
        help="The live graph, as one deploys it, or every operator executed.",
    )


def prior_option() -> Callable[[FC], FC]:
    """``--prior FILE``: what is known about devices, instead of what ships."""
    return click.option(
        "--prior",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="What is known about devices, a file of 'hwnas train latency'.  [default: the "
        "shipped prior]",
    )


def data_option() -> Callable[[FC], FC]:
    """``--data DIR``, several times: later folders add devices to earlier ones."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        required=True,
        multiple=True,
        metavar="DIR",
        help="Folder of Parquet tables; may be given several times.",
    )
