"""`hwnas bench rank`: one score against true Pareto ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.bench_options import devices_option, draw_figures, plots_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import data_option, names, verb

if TYPE_CHECKING:
    from rich.console import Console

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

# Those of workflows.rank_protocol, which is too heavy to import for help; a test compares them.
MODELS = ("posterior", "network")
LOSSES = ("listwise", "paper_eq8", "efron", "pairwise")
OBJECTIVES = ("error,latency", "error,energy", "error,latency,energy")
_COLUMNS = (
    "kendall",
    "kendall_sd",
    "kendall_new_families",
    "kendall_distinct",
    "kendall_batch18",
    "kendall_within18",
    "normalized_hv",
    "n",
    "n_tied_pairs",
)
_INDEPENDENT = ("independent", "independent_new_families", "gain", "ahead")


def chosen_model(model: str | None, **of_network: object) -> str:
    """The model that is meant: the network when an option of its own is given (not None).

    Raises: UsageError for such an option beside the posterior.
    """
    given = [
        f"--{name.replace('_', '-')}" for name, value in of_network.items() if value is not None
    ]
    if model == "posterior" and given:
        raise click.UsageError(f"{' and '.join(given)}: only with --model network")
    return model or ("network" if given else "posterior")


def model_option(others: str) -> Callable[[FC], FC]:
    """``--model NAME``; `others` are the options that mean the network without it."""
    return click.option(
        "--model",
        type=click.Choice(MODELS),
        help="Expected rank under a posterior (ours), or the paper's network.  "
        f"[default: posterior; network when {others} is given]",
    )


def loss_option() -> Callable[[FC], FC]:
    """``--loss NAME`` of the network."""
    return click.option(
        "--loss", type=click.Choice(LOSSES), help="Loss of the network.  [default: listwise]"
    )


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Option callback: ``8,16`` as integers."""
    if value is None:
        return ()
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not a list of numbers", ctx, param) from exc
    if min(numbers) < 2:
        raise click.BadParameter("every number must be at least 2", ctx, param)
    return numbers


@click.command(short_help="Scores against true Pareto ranks.")
@data_option()
@devices_option("Devices, each learned by itself from --train of its rows.")
@click.option(
    "--train",
    type=click.IntRange(min=30),
    default=500,
    show_default=True,
    help="Architectures whose error and costs the model sees.",
)
@model_option("--loss or --batch-size")
@loss_option()
@click.option("--batch-size", type=click.IntRange(min=2), help="Of the network.  [default: 18]")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Repetitions, seeded 0, 1, ...; figures are means over them.",
)
@click.option(
    "--against",
    type=click.Choice(["independent"]),
    help="Compare with one predictor per objective, ranked by non-dominated sorting.",
)
@click.option(
    "--objectives",
    type=click.Choice(OBJECTIVES),
    default="error,latency",
    show_default=True,
    help="What the ranks are of.",
)
@click.option(
    "--new-platform",
    is_flag=True,
    help="Also add each device to a predictor trained on another, in five epochs.",
)
@click.option(
    "--curve",
    callback=_numbers,
    metavar="N,N,..",
    help="Also repeat with these numbers of labels.",
)
@click.option(
    "--batch-sizes",
    callback=_numbers,
    metavar="N,N,..",
    help="Also train the network with these batch sizes.",
)
@click.option(
    "--losses",
    callback=names,
    metavar="A,B,..",
    help="Also train the network with these losses.",
)
@plots_option("Also draw bars per device and per way of ranking, and a line per sweep, there.")
@verb
def rank(
    app: App,
    *,
    data: tuple[Path, ...],
    devices: tuple[str, ...] | None,
    train: int,
    model: str | None,
    loss: str | None,
    batch_size: int | None,
    seeds: int,
    against: str | None,
    objectives: str,
    new_platform: bool,
    curve: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    losses: tuple[str, ...] | None,
    plots: Path | None,
) -> None:
    """Learn a score from a few labels and compare it with the Pareto ranks of the whole table.

    'kendall' is tau-b over all live cells, 'kendall_new_families' over those whose function no
    labelled cell computes: the rest may have been told. 'kendall_distinct' counts pairs of
    different rank only,
    'kendall_batch18' those inside batches of 18, 'kendall_within18' the same when the model is
    asked for the ranks inside that batch. 'normalized_hv' is of the 100 best-scored cells,
    relative to the true front; see 'bench search' for its protocol.
    """
    from hwnas_sdk.workflows.bench_rank import run_bench_rank
    from hwnas_sdk.workflows.rank_protocol import RankBenchPlan
    from hwnas_sdk.workflows.search_protocol import HELP_UNSEEN_DEVICES

    chosen = chosen_model(model, loss=loss, batch_size=batch_size)
    app.starts_over = True
    plan = RankBenchPlan(
        devices=tuple(dict.fromkeys(devices or HELP_UNSEEN_DEVICES)),
        train=train,
        model=chosen,
        loss=loss or LOSSES[0],
        batch_size=batch_size,
        seeds=seeds,
        metrics=tuple(objectives.split(",")[1:]),
        independent=against == "independent",
        new_platform=new_platform,
    )
    answer = run_bench_rank(
        data,
        plan,
        curve=curve,
        batch_sizes=batch_sizes,
        losses=losses or (),
        plots=plots,
        on_event=app.progress,
    )
    app.show(answer, lambda console: _draw(console, answer))


def _draw(console: Console, answer: Mapping[str, Any]) -> None:
    """Tau-b of the independent predictors, where they were asked for, in the score's own row."""
    devices = {}
    for name, figures in answer["devices"].items():
        other = figures.get("independent", {})
        devices[name] = {
            **figures,
            "independent": other.get("kendall"),
            "independent_new_families": other.get("kendall_new_families"),
        }
    columns = _COLUMNS + _INDEPENDENT if "independent" in answer else _COLUMNS
    draw_figures(console, {**answer, "devices": devices}, columns)
