"""`hwnas verify`: a predicted front against the board."""

from __future__ import annotations

from pathlib import Path

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import (
    announce,
    draw_verdicts,
    make_settings,
    open_lab,
    runtime_option,
    settings_options,
    show_plan,
    warn_untuned,
)
from hwnas_sdk.cli.options import device_option, dry_run_option, verb


@click.command(short_help="Measure the candidates of a search and compare.")
@click.argument("front", type=click.Path(dir_okay=False, path_type=Path))
@runtime_option()
@settings_options
@device_option()
@dry_run_option()
@verb
def verify(
    app: App,
    *,
    front: Path,
    runtime: str,
    settings: str,
    threads: int,
    device: str,
    dry_run: bool,
) -> None:
    """Measure the candidates in FRONT (written by 'hwnas search -o') and compare.

    The networks are measured in the form the search predicted (see 'hwnas search --folded').
    Interrupted, the same command continues.
    """
    from hwnas_sdk.workflows.fronts import read_front, verdict_to_mapping

    candidates = read_front(front)
    wants_energy = "energy" in candidates.objectives
    chosen = make_settings(settings, threads, runtime=runtime, energy=wants_energy)
    n = len(candidates.candidates)
    if dry_run:
        plan = {"device": device, "n_networks": n, "settings": settings,
                "runtime": runtime,
                "folded": candidates.folded,
                "estimated_board_s": n * chosen.estimated_s()}  # fmt: skip
        show_plan(app, plan)
        return
    lab = open_lab(app)
    session = lab.device(device)
    warn_untuned(app, session, chosen)
    announce(app, n, n * chosen.estimated_s(), session)
    verdict = lab.verify(candidates, on=session, settings=chosen)
    app.show(
        {"device": session.spec.name, **verdict_to_mapping(verdict)},
        lambda console: draw_verdicts(console, [verdict]),
    )
