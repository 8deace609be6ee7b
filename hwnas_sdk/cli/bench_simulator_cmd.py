"""`hwnas bench simulator`: a simulated accelerator against its published table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.bench_options import plots_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, verb

if TYPE_CHECKING:
    from rich.console import Console

_FIGURES = ("spearman", "kendall", "mape_pct", "worst_ratio_error_pct")
_OPERATORS = ("conv3x3", "conv1x1", "avgpool")


@click.command(short_help="A simulated accelerator against its published table.")
@data_option()
@click.option(
    "--simulator",
    required=True,
    metavar="NAME|FILE",
    help="eyeriss, fpga, or the path of an accelerator description.",
)
@click.option(
    "--dataset",
    type=click.Choice(["cifar10", "cifar100", "imagenet16_120"]),
    default="cifar10",
    show_default=True,
    help="Sets the networks' input and the column of the table.",
)
@click.option(
    "--table",
    metavar="DEVICE",
    help="Column to compare with, without the data set.  [default: the simulator's name]",
)
@click.option(
    "--pooling",
    type=click.Choice(["modelled", "dense_conv"]),
    help="Convention of the figures that lead; both are printed.  "
    "[default: the one of the published column]",
)
@plots_option("Also draw a roofline and a scatter plot there.")
@click.option(
    "--every",
    type=click.IntRange(min=1, max=100),
    default=1,
    show_default=True,
    help="Use every so many networks of the table only, to try a description quickly.",
)
@verb
def simulator(
    app: App,
    *,
    data: tuple[Path, ...],
    simulator: str,
    dataset: str,
    table: str | None,
    pooling: str | None,
    plots: Path | None,
    every: int,
) -> None:
    """Simulate every network of a published table and compare with it.

    The simulator reads its description only. Rank correlation proves little here, so what counts
    are the ratios of the costs of a 3x3 convolution, a 1x1 convolution and a pooling.
    """
    from hwnas_sdk.workflows.bench_simulator import run_bench_simulator

    app.starts_over = True
    answer = run_bench_simulator(
        data,
        simulator=simulator,
        dataset=dataset,
        table=table,
        pooling=pooling,  # type: ignore[arg-type]  # click has checked it
        plots=plots,
        every=every,
        on_event=app.progress,
    )
    app.show(answer, lambda console: _draw(console, answer))


def _draw(console: Console, answer: Mapping[str, Any]) -> None:
    from hwnas_sdk.cli.render import facts, table

    rows = []
    for convention, metrics in answer["conventions"].items():
        for metric, found in metrics.items():
            ratios = [
                " : ".join(f"{found[key][operator]:.2f}" for operator in _OPERATORS)
                for key in ("cost_ratios", "published_ratios")
            ]
            rows.append(
                [metric.replace("_", " "), convention, *(found[key] for key in _FIGURES), *ratios]
            )
    heads = ["metric", "pooling", *(name.replace("_", " ") for name in _FIGURES)]
    console.print(table([*heads, "3x3 : 1x1 : pool", "published"], rows))
    columns = ("op", "shape", "latency_us", "energy_uj", "outer_kib", "utilisation", "mapping")
    layers = [[row[column] for column in columns] for row in answer["layers"]]
    console.print(table([column.replace("_", " ") for column in columns], layers))
    left_out = {"latency", "energy", "energy_with_outermost_memory", "conventions", "layers"}
    console.print(facts({key: value for key, value in answer.items() if key not in left_out}))
