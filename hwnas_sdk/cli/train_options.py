"""What the verbs of `hwnas train` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.core.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

TASKS = ("digits", "cifar10", "cifar100", "imagenet16_120")

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


def data_dir_option() -> Callable[[FC], FC]:
    """``--data-dir DIR`` of a task."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Folder with the task's files as published (Python version).",
    )


def torch_device_option(
    text: str = "Where torch trains: cpu, cuda, cuda:1, mps.",
) -> Callable[[FC], FC]:
    """``--torch-device NAME``."""
    return click.option(
        "--torch-device", default="cpu", show_default=True, metavar="NAME", help=text
    )


def need_torch(purpose: str) -> None:
    """Raise MissingExtraError without torch."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as exc:
        raise MissingExtraError("torch", "torch", purpose=purpose) from exc


def show_trained(app: App, answer: Mapping[str, Any], *, left_out: tuple[str, ...] = ()) -> None:
    """Show the answer; for people its metrics beside the rest, without what is `left_out`."""

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        hidden = {"metrics", *left_out}
        shown = {name: value for name, value in answer.items() if name not in hidden}
        console.print(facts({**shown, **answer["metrics"]}))

    app.show(answer, draw)
