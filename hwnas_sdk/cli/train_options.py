"""What the verbs of `hwnas train` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.context import App

if TYPE_CHECKING:
    from rich.console import Console

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

_BESIDE = "File to write (.safetensors); the card is written beside it."


def weights_option(text: str = _BESIDE) -> Callable[[FC], FC]:
    """``-o FILE``, required."""
    return click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help=text,
    )


def show_trained(app: App, answer: Mapping[str, Any], *, left_out: tuple[str, ...] = ()) -> None:
    """Show the answer; for people its metrics beside the rest, without what is `left_out`."""

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        hidden = {"metrics", *left_out}
        shown = {name: value for name, value in answer.items() if name not in hidden}
        console.print(facts({**shown, **answer["metrics"]}))

    app.show(answer, draw)
