"""`hwnas train hypernetwork`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import names, seed_option, verb
from hwnas_sdk.cli.train_options import (
    TASKS,
    data_dir_option,
    need_torch,
    show_trained,
    torch_device_option,
    weights_option,
)
from hwnas_sdk.core.errors import ConfigError

SCHEMES = ("mgd", "mean", "sequential", "sampled")
ESTIMATORS = ("exact", "reinmax", "straight-through", "gdas")
_OF_IMAGES = ("data_dir", "steps", "batch_size", "channels", "cells", "warm_up")


@click.command(short_help="Proposes networks for any device (MODNAS).")
@weights_option()
@click.option(
    "--objectives",
    default="error,latency",
    show_default=True,
    metavar="LIST",
    callback=names,
    help="What it trades off: error,latency or error,latency,memory.",
)
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default="mgd",
    show_default=True,
    help="How the devices' gradients are joined.",
)
@click.option(
    "--estimator",
    type=click.Choice(ESTIMATORS),
    help="How decisions get a gradient: the exact expectation, or from samples.  [default: exact; "
    "reinmax with --task]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Epochs of 50 steps; with --task, passes over half of the training images.  [default: "
    "60; with --task 40 for digits, else 100]",
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="Train a supernetwork on images of this task along the way, instead of asking the shipped "
    "accuracy model.",
)
@data_dir_option()
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Steps of an epoch, with --task.  [default: one pass]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    help="Images per step, with --task.  [default: 64 for digits, else 256]",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    help="Channels of the supernetwork's first stage; two more stages have twice and four times as "
    "many.  [default: 8 for digits, else 16]",
)
@click.option(
    "--cells",
    type=click.IntRange(min=1),
    help="Cells per stage of the supernetwork.  [default: 1 for digits, else 5]",
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=0),
    help="Epochs at the start in which only the supernetwork learns, from random networks.  "
    "[default: half of them for digits, else 0]",
)
@torch_device_option("Where torch trains the supernetwork: cpu, cuda, cuda:1, mps.")
@seed_option()
@verb
def hypernetwork(
    app: App,
    *,
    output: Path,
    objectives: tuple[str, ...],
    scheme: str,
    estimator: str | None,
    epochs: int | None,
    task: str | None,
    torch_device: str,
    seed: int,
    **of_images: Any,
) -> None:
    """Train a MetaHypernetwork, from the shipped predictors or (--task) on images.

    Without --task no data is needed. With it, a supernetwork learns from half of the training
    images while the other half judges what is proposed; it is written beside the hypernetwork.
    'hwnas search --method modnas --hypernetwork FILE' uses the result. Interrupted, the same
    command continues and ends in the same weights.
    """
    need_torch("training a hypernetwork")
    app.check_output(output)
    if task is not None:
        estimator = estimator or "reinmax"
        answer = _on_images(
            app, output, task, torch_device=torch_device, objectives=objectives, scheme=scheme,
            estimator=estimator, epochs=epochs, seed=seed, **of_images,
        )  # fmt: skip
    else:
        _refuse_without_task(of_images, torch_device)
        from hwnas_sdk.workflows.hypernetworks import EPOCHS
        from hwnas_sdk.workflows.train_hypernetwork import train_space_hypernetwork

        answer = train_space_hypernetwork(
            output,
            objectives=objectives,
            scheme=scheme,
            estimator=estimator or "exact",
            epochs=epochs or EPOCHS,
            seed=seed,
            on_event=app.progress,
        )
    show_trained(app, answer, left_out=("history", "plan"))


def _on_images(
    app: App,
    output: Path,
    task: str,
    *,
    data_dir: Path | None,
    torch_device: str,
    objectives: tuple[str, ...],
    **options: Any,
) -> dict[str, Any]:
    from hwnas_sdk.networks.supernet_response import search_halves
    from hwnas_sdk.networks.training.images import load_images
    from hwnas_sdk.networks.training.tasks import image_task
    from hwnas_sdk.workflows import train_supernet as work

    chosen = image_task(task)
    images = search_halves(load_images(chosen, data_dir))
    return work.train_task_hypernetwork(
        output,
        images,
        work.default_search(chosen, len(images.train), **options),
        objectives=objectives,
        torch_device=torch_device,
        on_event=app.progress,
    )


def _refuse_without_task(of_images: dict[str, Any], torch_device: str) -> None:
    """Raise ConfigError when something was asked for that only images need."""
    asked = [name for name in _OF_IMAGES if of_images[name] is not None]
    if torch_device != "cpu":
        asked.append("torch_device")
    if asked:
        raise ConfigError(
            f"--{asked[0].replace('_', '-')} is of no use without images",
            hint="add --task, for example --task digits",
        )
