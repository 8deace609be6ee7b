"""`hwnas train meta`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.bench_options import train_devices_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, seed_option, verb
from hwnas_sdk.cli.train_options import (
    judged_devices_option,
    metric_option,
    show_judged,
    torch_device_option,
    weights_option,
)


@click.command(short_help="Predicts any device from ten of its latencies.")
@data_option()
@train_devices_option()
@judged_devices_option()
@weights_option()
@metric_option()
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the architectures.")
@seed_option()
@torch_device_option()
@verb
def meta(
    app: App,
    *,
    data: tuple[Path, ...],
    train_devices: tuple[str, ...] | None,
    devices: tuple[str, ...] | None,
    output: Path,
    metric: str,
    epochs: int | None,
    seed: int,
    torch_device: str,
) -> None:
    """Train MODNAS' MetaPredictor, with the scale of a device fixed by its own references.

    Takes minutes on one core. Killed, the same command continues. No command reads the file: it is
    for Python (MetaPredictor.load), where gradients through the prediction are wanted. The model
    that searches use predicts unseen devices better; 'hwnas train latency' fits it.
    """
    from hwnas_sdk.workflows.search_protocol import HELP_TRAIN_DEVICES
    from hwnas_sdk.workflows.train_meta import train_meta

    app.check_output(output)
    answer = train_meta(
        data,
        output,
        train_devices=train_devices or HELP_TRAIN_DEVICES,
        devices=devices or (),
        metric=metric,
        epochs=epochs,
        seed=seed,
        torch_device=torch_device,
        on_event=app.progress,
    )
    show_judged(app, answer)
