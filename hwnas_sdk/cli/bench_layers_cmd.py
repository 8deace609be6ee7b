"""`hwnas bench layers`: the layer-wise look-up table against whole networks, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.bench_options import plots_option
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import announce, make_settings, open_lab, settings_options, show_plan
from hwnas_sdk.cli.measure_cmd import n_parts
from hwnas_sdk.cli.options import device_option, dry_run_option, prior_option, seed_option, verb

if TYPE_CHECKING:
    from rich.console import Console

_FIGURES = ("spearman", "kendall", "median_ape_pct", "n", "n_tied_pairs")
_FACTS = (
    "n_layers", "n_measured", "n_from_store", "board_s_layers", "board_s_samples", "calling_ms",
    "sum_over_latency", "calibration", "run", "plots",
)  # fmt: skip


@click.command(short_help="Sums of measured layers against whole networks, on a device.")
@click.option(
    "--n",
    type=click.IntRange(min=2),
    default=24,
    show_default=True,
    help="Random networks; those that are not learned from judge.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="Whole networks that correct the sum and teach the models beside it.",
)
@click.option(
    "--fresh", is_flag=True, help="Measure all again, whatever the store has in these settings."
)
@prior_option()
@plots_option("Also draw predicted over measured latency there.")
@settings_options
@device_option()
@seed_option()
@dry_run_option()
@verb
def layers(
    app: App,
    *,
    n: int,
    samples: int,
    fresh: bool,
    prior: Path | None,
    plots: Path | None,
    settings: str,
    threads: int,
    device: str,
    seed: int,
    dry_run: bool,
) -> None:
    """Measure networks and their layers on a device; compare the sums with the networks.

    The layer-wise look-up table (raw, and corrected by a straight line through --samples networks)
    stands beside counting operations and the transfer model of searches, which see the same
    --samples networks. All are judged on the others. What the store has in the same settings, also
    of 'hwnas measure --layers', is not measured again. Interrupted, the same command continues.
    """
    from hwnas_sdk.spaces import get_space
    from hwnas_sdk.workflows.bench_layers import check_judged, run_bench_layers
    from hwnas_sdk.workflows.priors import load_prior

    check_judged(n, samples)
    chosen = make_settings(settings, threads)
    known_devices = load_prior(prior)
    parts = n_parts(get_space("nasbench201").sample(n, seed=seed), folded=False)
    estimate_s = parts * chosen.estimated_s()
    if dry_run:
        if ":" not in device:
            app.inventory().get(device)
        plan = {"device": device, "n": n, "n_samples": samples, "n_networks": parts,
                "settings": settings, "threads": threads, "fresh": fresh,
                "estimated_board_s": estimate_s}  # fmt: skip
        show_plan(app, plan)
        return
    lab = open_lab(app)
    session = lab.device(device)
    announce(app, parts, estimate_s, session)
    answer = run_bench_layers(
        lab,
        on=session,
        n=n,
        samples=samples,
        settings=chosen,
        prior=known_devices,
        fresh=fresh,
        seed=seed,
        plots=plots,
    )
    app.show(answer, lambda console: _draw(console, answer))


def _draw(console: Console, answer: Mapping[str, Any]) -> None:
    from hwnas_sdk.cli.render import facts, table

    rows = [
        [name, *(figures[column] for column in _FIGURES)]
        for name, figures in answer["models"].items()
    ]
    title = (
        f"{answer['device']} ({answer['origin']}): {answer['n_samples']} networks to learn from, "
        f"{answer['n_judged']} others judge"
    )
    heads = ["model", *(column.replace("_", " ") for column in _FIGURES)]
    console.print(table(heads, rows, title=title))
    console.print(facts({name: answer[name] for name in _FACTS}))
