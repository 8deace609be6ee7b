"""Options that the benches on published tables share.

The default split is the one the literature uses on these tables (HELP's meta-train and meta-valid
devices to learn from, its meta-test devices as unseen), so that figures can be compared; the
benches hold the lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.options import names

if TYPE_CHECKING:
    from rich.console import Console

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


def train_devices_option() -> Callable[[FC], FC]:
    """``--train-devices A,B``: devices whose whole columns a predictor may learn from."""
    return click.option(
        "--train-devices",
        callback=names,
        metavar="A,B,..",
        help="Devices whose whole columns the predictor learns from.  "
        "[default: the 13 HELP trains on]",
    )


def devices_option(text: str) -> Callable[[FC], FC]:
    """``--devices X,Y``: the unseen devices of a bench."""
    return click.option(
        "--devices",
        callback=names,
        metavar="X,Y,..",
        help=f"{text}  [default: the 6 HELP tests on]",
    )


def samples_option() -> Callable[[FC], FC]:
    """``--samples N``: measurements of an unseen device a predictor may see."""
    return click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Measurements of the unseen device the predictor sees.",
    )


def plots_option(text: str) -> Callable[[FC], FC]:
    """``--plots DIR``: pictures beside the figures."""
    return click.option(
        "--plots", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help=text
    )


def draw_figures(console: Console, answer: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Table of one row per device, then what holds for all of them."""
    from hwnas_sdk.cli.render import facts, table

    rows = [
        [name, *(figures.get(column) for column in columns)]
        for name, figures in answer["devices"].items()
    ]
    console.print(table(["device", *(column.replace("_", " ") for column in columns)], rows))
    console.print(facts({key: value for key, value in answer.items() if key != "devices"}))
