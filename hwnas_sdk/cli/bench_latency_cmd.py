"""`hwnas bench latency`: unseen devices predicted from a few of their latencies."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.bench_options import (
    devices_option,
    draw_figures,
    plots_option,
    samples_option,
    train_devices_option,
)
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, seed_option, verb
from hwnas_sdk.predictors.registry import model_names

# Those of workflows.bench_latency, which is too heavy to import for help; a test compares them.
REFERENCES = ("ours", "paper", "random", "active")
_COLUMNS = (
    "spearman",
    "spearman_noise_ceiling",
    "kendall",
    "kendall_ceiling",
    "kendall_retest",
    "mape_pct",
    "median_ape_pct",
    "coverage90",
    "n_samples",
    "n",
    "n_tied_pairs",
)


@click.command(short_help="Predict unseen devices from a few of their latencies.")
@data_option()
@train_devices_option()
@devices_option("Devices to predict, as if unseen.")
@samples_option()
@click.option(
    "--metric",
    type=click.Choice(["latency", "energy"]),
    default="latency",
    show_default=True,
    help="What is predicted; energy, unless --devices say otherwise, of the two public devices "
    "with an energy of their own (cifar10_edgegpu, cifar10_eyeriss).",
)
@click.option(
    "--train-metric",
    type=click.Choice(["latency", "energy"]),
    help="Which values of --train-devices are known.  [default: as --metric; latency without "
    "--train-devices, as searches carry latencies over to energy]",
)
@click.option(
    "--model",
    type=click.Choice(model_names()),
    default="auto",
    show_default=True,
    help="The predictor: ours, or a baseline to compare with.",
)
@click.option(
    "--references",
    type=click.Choice(REFERENCES),
    default="ours",
    show_default=True,
    help="Which networks are measured: D-optimal, HELP's ten, random, or chosen one by one.",
)
@click.option(
    "--leave-one-out",
    is_flag=True,
    help="Fit anew for each device of --devices, on all others of both lists but those that have "
    "its values under another name.",
)
@seed_option()
@plots_option("Also draw predicted over published values, and the coverage of intervals, there.")
@verb
def latency(
    app: App,
    *,
    data: tuple[Path, ...],
    train_devices: tuple[str, ...] | None,
    devices: tuple[str, ...] | None,
    samples: int,
    metric: str,
    train_metric: str | None,
    model: str,
    references: str,
    leave_one_out: bool,
    seed: int,
    plots: Path | None,
) -> None:
    """Predict unseen devices from a few of their latencies and compare with the whole table.

    The predictor is fitted on --train-devices, sees --samples values of each device of --devices,
    and is judged on the rest of its column. With more than 100 samples that is, of the rest, what
    computes another function than every sample; 'kendall_new_families' always is.
    """
    from hwnas_sdk.workflows.bench_latency import run_bench_latency

    app.starts_over = True
    answer = run_bench_latency(
        data,
        train_devices=train_devices,
        devices=devices,
        samples=samples,
        metric=metric,
        train_metric=train_metric,
        model=model,
        references=references,
        leave_one_out=leave_one_out,
        seed=seed,
        plots=plots,
        on_event=app.progress,
    )
    for note in answer["notes"]:
        app.note(note)
    shown = {key: value for key, value in answer.items() if key != "notes"}
    app.show(answer, lambda console: draw_figures(console, shown, _COLUMNS))
