"""`hwnas train accuracy`."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import seed_option, verb
from hwnas_sdk.cli.train_options import show_trained, weights_option


@click.command(short_help="Predicts the error of a trained architecture.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Folder of Parquet tables to learn from.",
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your own errors instead: .csv or .parquet with columns arch and error_pct or "
    "accuracy_pct.",
)
@weights_option()
@click.option(
    "--dataset",
    default="cifar10",
    show_default=True,
    metavar="NAME",
    help="Data set of the tables' column, or of your numbers.",
)
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    help="Of the data set: a dead architecture guesses.  [default: known for the tables]",
)
@click.option("--train", type=click.IntRange(min=50), help="Labels to learn from.  [default: all]")
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Passes over the labels.  [default: 160]"
)
@seed_option()
@verb
def accuracy(
    app: App,
    *,
    data: tuple[Path, ...],
    labels: Path | None,
    output: Path,
    dataset: str,
    classes: int | None,
    train: int | None,
    epochs: int | None,
    seed: int,
) -> None:
    """Train an ensemble of small networks on the errors of NAS-Bench-201 cells.

    Judged on function families it did not see; then trained once more on all labels. Killed, the
    same command continues.
    """
    from hwnas_sdk.workflows.train_accuracy import train_accuracy

    answer = train_accuracy(
        output,
        data_dirs=data,
        labels=labels,
        dataset=dataset,
        n_classes=classes,
        train=train,
        epochs=epochs,
        seed=seed,
        on_event=app.progress,
    )
    show_trained(app, answer, left_out=("plan",))
