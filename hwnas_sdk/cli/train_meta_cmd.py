"""`hwnas train meta`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.bench_options import train_devices_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, seed_option, verb
from hwnas_sdk.cli.train_options import weights_option

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Predicts any device from ten of its latencies.")
@data_option()
@train_devices_option()
@click.option(
    "--devices",
    metavar="A,B,..",
    help="Devices to judge the result on; they teach it nothing.",
)
@weights_option()
@click.option(
    "--metric",
    type=click.Choice(["latency", "energy"]),
    default="latency",
    show_default=True,
    help="Which table of the devices is learned.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the architectures.")
@seed_option()
@verb
def meta(
    app: App,
    *,
    data: tuple[Path, ...],
    train_devices: tuple[str, ...] | None,
    devices: str | None,
    output: Path,
    metric: str,
    epochs: int | None,
    seed: int,
) -> None:
    """Train MODNAS' MetaPredictor, with the scale of a device fixed by its own references.

    Takes minutes on one core. Killed, the same command continues. The weights are for
    differentiable search; 'auto' predicts unseen devices better.
    """
    from hwnas_sdk.workflows.bench_search import HELP_TRAIN_DEVICES
    from hwnas_sdk.workflows.train_meta import train_meta

    app.check_output(output)
    answer = train_meta(
        data,
        output,
        train_devices=train_devices or HELP_TRAIN_DEVICES,
        devices=tuple(part.strip() for part in (devices or "").split(",") if part.strip()),
        metric=metric,
        epochs=epochs,
        seed=seed,
        on_event=app.progress,
    )

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts, table

        rows = [
            (name, row["spearman"], row["kendall"], row["median_ape_pct"])
            for name, row in answer["metrics"].items()
        ]
        if rows:
            console.print(table(("device", "spearman", "kendall", "median ape pct"), rows))
        console.print(facts({"model": answer["model"], "sha256": answer["weights_sha256"]}))

    app.show(answer, draw)
