"""`hwnas train rank`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.bench_rank_cmd import (
    LOSSES,
    OBJECTIVES,
    chosen_model,
    loss_option,
    model_option,
)
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, seed_option, verb
from hwnas_sdk.cli.train_options import show_trained, torch_device_option, weights_option


@click.command(short_help="A score that orders architectures for a device.")
@data_option()
@click.option("--device", required=True, metavar="NAME", help="A device of the tables.")
@weights_option()
@click.option(
    "--train",
    type=click.IntRange(min=30),
    default=500,
    show_default=True,
    help="Architectures to learn from.",
)
@model_option("--loss or --torch-device")
@loss_option()
@click.option(
    "--objectives",
    type=click.Choice(OBJECTIVES),
    default="error,latency",
    show_default=True,
    help="What the ranks are of.",
)
@torch_device_option(
    "Where torch trains the network: cpu, cuda, cuda:1, mps; auto is cuda where there is one.  "
    "[default: cpu]",
    default=None,
)
@seed_option()
@verb
def rank(
    app: App,
    *,
    data: tuple[Path, ...],
    device: str,
    output: Path,
    train: int,
    model: str | None,
    loss: str | None,
    objectives: str,
    torch_device: str | None,
    seed: int,
) -> None:
    """Learn a device's Pareto ranks from some rows of its tables; judge on the other rows.

    The file of the posterior holds the labels it learned from: mind their licence. The network
    takes minutes on one core; killed, the same command continues.
    """
    from hwnas_sdk.workflows.train_rank import train_rank

    chosen = chosen_model(model, loss=loss, torch_device=torch_device)
    app.starts_over = chosen == "posterior"
    answer = train_rank(
        data,
        device,
        output,
        train=train,
        model=chosen,
        loss=loss or LOSSES[0],
        metrics=tuple(objectives.split(",")[1:]),
        torch_device=torch_device or "cpu",
        seed=seed,
        on_event=app.progress,
    )
    show_trained(app, answer)
