"""`hwnas train latency`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.bench_options import train_devices_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, verb
from hwnas_sdk.cli.train_options import (
    judged_devices_option,
    show_judged,
    weights_option,
)


@click.command(short_help="What searches know about devices (any --prior).")
@data_option()
@train_devices_option()
@judged_devices_option()
@weights_option()
@verb
def latency(
    app: App,
    *,
    data: tuple[Path, ...],
    train_devices: tuple[str, ...] | None,
    devices: tuple[str, ...] | None,
    output: Path,
) -> None:
    """Fit the prior of the Bayesian transfer model: what known devices say of any device.

    The file is what --prior of 'hwnas search', 'loop', 'profile' and 'bench layers' takes instead
    of the shipped prior. Takes a second and draws nothing at random. The judged devices are told by
    the ten networks 'hwnas profile' measures.
    """
    from hwnas_sdk.workflows.search_protocol import HELP_TRAIN_DEVICES
    from hwnas_sdk.workflows.train_latency import train_latency

    app.starts_over = True
    answer = train_latency(
        data,
        output,
        train_devices=train_devices or HELP_TRAIN_DEVICES,
        devices=devices or (),
        on_event=app.progress,
    )
    show_judged(app, answer)
