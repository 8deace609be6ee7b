"""`hwnas train rank`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.bench_rank_cmd import LOSSES, MODELS, OBJECTIVES
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, seed_option, verb
from hwnas_sdk.cli.train_options import show_trained, weights_option


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
@click.option(
    "--model",
    type=click.Choice(MODELS),
    default="posterior",
    show_default=True,
    help="Expected rank under a posterior (ours), or the paper's network.",
)
@click.option(
    "--loss",
    type=click.Choice(LOSSES),
    default="listwise",
    show_default=True,
    help="Loss of the network.",
)
@click.option(
    "--objectives",
    type=click.Choice(OBJECTIVES),
    default="error,latency",
    show_default=True,
    help="What the ranks are of.",
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
    model: str,
    loss: str,
    objectives: str,
    seed: int,
) -> None:
    """Learn a device's Pareto ranks from some rows of its tables; judge on the other rows.

    The file of the posterior holds the labels it learned from: mind their licence.
    """
    from hwnas_sdk.workflows.train_rank import train_rank

    app.starts_over = True
    answer = train_rank(
        data,
        device,
        output,
        train=train,
        model=model,
        loss=loss,
        metrics=tuple(objectives.split(",")[1:]),
        seed=seed,
        on_event=app.progress,
    )
    show_trained(app, answer)
