"""`hwnas bench search`: how good the networks are that a search finds, by published tables."""

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
from hwnas_sdk.cli.options import data_option, verb

# Those of workflows.bench_search, which is too heavy to import for help; a test compares them.
METHODS = (
    "auto",
    "rank",
    "modnas",
    "modnas-look-up",
    "rhpn",
    "random",
    "auto-stratified",
    "nsga2",
    "brp-nas",
    "gates",
    "lemonade",
    "local-search",
    "mo-rea",
    "ofa",
    "metad2a",
)
REFERENCES = ("ours", "paper")
_COLUMNS = (
    "hv",
    "hv_true",
    "normalized_hv",
    "normalized_hv_sd",
    "gd_plus",
    "igd_plus",
    "n_distinct",
    "search_seconds",
)


@click.command(short_help="Hypervolume of what a search finds on published tables.")
@data_option()
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="How candidates are searched.",
)
@train_devices_option()
@devices_option("Devices to search for, as if unseen.")
@click.option(
    "--train-accuracies",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Accuracies the accuracy predictor may learn from.",
)
@samples_option()
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Networks the search returns in each round.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rounds; each reveals the true values of its candidates to the next.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Repetitions, seeded 0, 1, ...; figures are means over them.",
)
@click.option(
    "--references",
    type=click.Choice(REFERENCES),
    default="ours",
    show_default=True,
    help="Which networks are measured on the unseen device: D-optimal, or HELP's ten.",
)
@plots_option(
    "Also draw, there, the fronts of the first seed over the true ones and the hypervolume after "
    "each of several rounds."
)
@verb
def search(
    app: App,
    *,
    data: tuple[Path, ...],
    method: str,
    train_devices: tuple[str, ...] | None,
    devices: tuple[str, ...] | None,
    train_accuracies: int,
    samples: int,
    candidates: int,
    rounds: int,
    seeds: int,
    references: str,
    plots: Path | None,
) -> None:
    """Search with predictors, then score the candidates with their true values.

    Hypervolume: cells with an error of 90 % or more are left out, both objectives are scaled to
    [0, 1] over the table, the reference point is (1, 1). 'normalized_hv' is relative to the true
    front.
    """
    from hwnas_sdk.workflows.bench_search import run_bench_search

    app.starts_over = True
    answer = run_bench_search(
        data,
        method=method,
        train_devices=train_devices,
        devices=devices,
        train_accuracies=train_accuracies,
        samples=samples,
        candidates=candidates,
        rounds=rounds,
        seeds=seeds,
        references=references,
        plots=plots,
        on_event=app.progress,
    )
    app.show(answer, lambda console: draw_figures(console, answer, _COLUMNS))
