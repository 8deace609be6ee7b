"""`hwnas train hypernetwork`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import seed_option, verb
from hwnas_sdk.cli.train_options import show_trained, weights_option

SCHEMES = ("mgd", "mean", "sequential", "sampled")
ESTIMATORS = ("exact", "reinmax", "straight-through", "gdas")


@click.command(short_help="Proposes networks for any device (MODNAS).")
@weights_option()
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
    default="exact",
    show_default=True,
    help="How decisions get a gradient: the exact expectation, or from samples.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Epochs of 50 steps.",
)
@seed_option()
@verb
def hypernetwork(
    app: App, *, output: Path, scheme: str, estimator: str, epochs: int, seed: int
) -> None:
    """Train a MetaHypernetwork from the shipped predictors; no data is needed.

    'hwnas search --method modnas --hypernetwork FILE' uses it. Interrupted, the same command
    continues.
    """
    from hwnas_sdk.workflows.train_hypernetwork import train_space_hypernetwork

    app.check_output(output)
    answer = train_space_hypernetwork(
        output,
        scheme=scheme,
        estimator=estimator,
        epochs=epochs,
        seed=seed,
        on_event=app.progress,
    )
    show_trained(app, answer, left_out=("history", "plan"))
