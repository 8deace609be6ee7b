"""`hwnas loop`: measure, learn, search, verify, again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import (
    announce,
    draw_verdicts,
    make_search_plan,
    make_settings,
    open_lab,
    runtime_option,
    search_options,
    settings_options,
    show_plan,
    warn_untuned,
)
from hwnas_sdk.cli.options import device_option, dry_run_option, folded_option, seed_option, verb

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Measure, learn, search and verify, round after round.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1, max=100),
    default=3,
    show_default=True,
    help="Rounds at most.",
)
@click.option(
    "--board-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Start no more work after this much board time.",
)
@click.option(
    "--min-gain",
    type=click.FloatRange(min=0, max=1),
    default=0.0,
    show_default=True,
    help="Stop when a round gains less verified hypervolume than this, relative.",
)
@click.option(
    "--references",
    type=click.Choice(["ours", "paper", "both"]),
    default="ours",
    show_default=True,
    help="Reference networks measured first.",
)
@search_options
@runtime_option()
@settings_options
@folded_option(default=True)
@device_option()
@seed_option()
@dry_run_option()
@verb
def loop(
    app: App,
    *,
    rounds: int,
    board_minutes: float | None,
    min_gain: float,
    references: str,
    runtime: str,
    settings: str,
    threads: int,
    folded: bool,
    device: str,
    seed: int,
    dry_run: bool,
    **options: Any,
) -> None:
    """Measure, learn, search and verify, round after round.

    Every round proposes networks that were not measured yet, measures them, and learns from the
    result. Killed at any point, the same command continues without losing or repeating a finished
    measurement.
    """
    from hwnas_sdk.workflows.fronts import verdict_to_mapping
    from hwnas_sdk.workflows.loop import LoopPlan, union_hypervolume

    search = make_search_plan(options, seed=seed)
    lab = open_lab(app)
    session = lab.device(device)
    energy = "energy" in search.objectives
    plan = LoopPlan(
        device=device,
        device_id=session.spec.id,
        search=search,
        settings=make_settings(settings, threads, runtime=runtime, energy=energy),
        references=references,
        rounds=rounds,
        folded=folded,
        gain_eps=min_gain,
        board_s=None if board_minutes is None else 60.0 * board_minutes,
    )
    if dry_run:
        show_plan(app, {**plan.to_json(), "estimated_board_s": plan.estimated_board_s()})
        return
    warn_untuned(app, session, plan.settings)
    announce(app, sum(plan.n_networks()), plan.estimated_board_s(), session)
    result = lab.loop(plan, on=session)
    answer = {
        "device": session.spec.name,
        "run": result.run.id,
        "stopped": result.stopped,
        "prior": None if search.prior is None else str(search.prior),
        "board_s": result.board.wall_s,
        "hypervolume_union": union_hypervolume(result.verdicts),
        "rounds": [verdict_to_mapping(verdict) for verdict in result.verdicts],
    }

    def draw(console: Console) -> None:
        draw_verdicts(console, result.verdicts)
        console.print(
            f"stopped: {result.stopped}; run {result.run.id}; page: hwnas report {result.run.id}",
            markup=False,
        )

    app.show(answer, draw)
