"""`hwnas bench measure`: what measuring costs, and how far it can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import announce, make_settings, open_lab, settings_options, show_plan
from hwnas_sdk.cli.options import device_option, dry_run_option, seed_option, verb

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Speed and repeatability of measuring on a device.")
@click.option(
    "--n",
    type=click.IntRange(min=2),
    default=50,
    show_default=True,
    help="Random networks to measure.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1, max=10),
    default=2,
    show_default=True,
    help="Independent sweeps per protocol.",
)
@click.option(
    "--against-fixed/--no-fixed",
    "against_fixed",
    default=True,
    show_default=True,
    help="Also measure with the fixed protocol (1 s warm-up, 7 blocks of 0.5 s), in turn.",
)
@click.option(
    "--against-torch/--no-torch",
    "against_torch",
    default=True,
    show_default=True,
    help="Also time torch.onnx.export in this process.",
)
@settings_options
@device_option()
@seed_option()
@dry_run_option()
@verb
def measure(
    app: App,
    *,
    n: int,
    repeat: int,
    against_fixed: bool,
    against_torch: bool,
    settings: str,
    threads: int,
    device: str,
    seed: int,
    dry_run: bool,
) -> None:
    """Measure the same random networks several times and say what it took.

    Overhead is wall time minus the time the board spends in warm-up and timed inference. The truth
    that both protocols are compared with pools all sweeps. Interrupted, it starts anew.
    """
    from hwnas_sdk.core.settings import settings_preset
    from hwnas_sdk.workflows.bench_measure import run_bench_measure

    chosen = make_settings(settings, threads)
    per_network_s = chosen.estimated_s()
    if against_fixed:
        per_network_s += settings_preset("fixed").estimated_s()
    estimate_s = n * repeat * per_network_s
    if dry_run:
        plan = {"device": device, "n": n, "repeat": repeat, "settings": settings,
                "against_fixed": against_fixed, "estimated_board_s": estimate_s}  # fmt: skip
        show_plan(app, plan)
        return
    lab = open_lab(app)
    session = lab.device(device)
    announce(app, n, estimate_s, session)
    answer = run_bench_measure(
        session,
        store=lab.store,
        cache=lab.cache,
        n=n,
        repeat=repeat,
        settings=chosen,
        compare_fixed=against_fixed,
        export_ratio=against_torch,
        seed=seed,
        on_event=app.progress,
    )

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        console.print(facts(answer, title=f"measuring on {session.spec.name}"))

    app.show(answer, draw)
