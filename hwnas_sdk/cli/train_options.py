"""What the verbs of `hwnas train` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import names
from hwnas_sdk.core.extras import needs_torch

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
    text: str = "Where torch trains: cpu, cuda, cuda:1, mps; auto is cuda where there is one.",
    *,
    default: str | None = "cpu",
) -> Callable[[FC], FC]:
    """``--torch-device NAME``; a default of None tells what was not asked for."""
    return click.option(
        "--torch-device",
        default=default,
        show_default=default is not None,
        metavar="NAME",
        help=text,
    )


def judged_devices_option() -> Callable[[FC], FC]:
    """``--devices A,B``: they judge and teach nothing."""
    return click.option(
        "--devices",
        callback=names,
        metavar="A,B,..",
        help="Devices to judge the result on; they teach it nothing.",
    )


def metric_option() -> Callable[[FC], FC]:
    """``--metric latency|energy`` of the tables."""
    return click.option(
        "--metric",
        type=click.Choice(["latency", "energy"]),
        default="latency",
        show_default=True,
        help="Which table of the devices is learned.",
    )


def need_torch(purpose: str) -> None:
    """Raise MissingExtraError without torch."""
    with needs_torch(purpose):
        import torch  # noqa: F401


def show_trained(app: App, answer: Mapping[str, Any], *, left_out: tuple[str, ...] = ()) -> None:
    """Show the answer; for people its metrics beside the rest, without what is `left_out`."""

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        hidden = {"metrics", *left_out}
        shown = {name: value for name, value in answer.items() if name not in hidden}
        console.print(facts({**shown, **answer["metrics"]}))

    app.show(answer, draw)


def show_judged(app: App, answer: Mapping[str, Any]) -> None:
    """Show the answer; for people a row per judged device, with the ties its tau-b counts."""

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts, table

        columns = ("spearman", "kendall", "median_ape_pct", "n", "n_tied_pairs")
        rows = [
            (name, *(row[column] for column in columns)) for name, row in answer["metrics"].items()
        ]
        if rows:
            console.print(table(("device", *(c.replace("_", " ") for c in columns)), rows))
        console.print(facts({"model": answer["model"], "sha256": answer["weights_sha256"]}))

    app.show(answer, draw)
