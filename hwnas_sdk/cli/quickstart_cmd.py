"""`hwnas quickstart`: the main job, on the machine you sit at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import announce, draw_verdicts, duration, open_lab, show_plan
from hwnas_sdk.cli.options import device_option, dry_run_option, seed_option, verb

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Find the best networks for this machine, measured, in a few minutes.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Board time at most; candidates that do not fit are left out and counted.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("hwnas-report.html"),
    show_default=True,
    help="Where the report goes.",
)
@device_option()
@seed_option()
@dry_run_option()
@verb
def quickstart(
    app: App, *, minutes: float, output: Path, device: str, seed: int, dry_run: bool
) -> None:
    """Find the best networks for this machine, measured, in a few minutes.

    Measures ten reference networks, predicts all 15,625 networks of NAS-Bench-201 from them,
    searches the best trade-offs between error and latency, measures 24 candidates and writes a
    report. The error is predicted (CIFAR-10); the latency is measured here.
    Interrupted, the same command continues.
    """
    from hwnas_sdk.core.clock import SYSTEM_CLOCK
    from hwnas_sdk.workflows.quickstart import quickstart_plan, run_quickstart

    if dry_run:
        plan = quickstart_plan(_known_id(app, device), device=device, seed=seed, minutes=minutes)
        show_plan(app, {**plan.to_json(), "estimated_board_s": plan.estimated_board_s()})
        return
    app.check_output(output)
    started_s = SYSTEM_CLOCK.monotonic_s()
    lab = open_lab(app)
    session = lab.device(device)
    plan = quickstart_plan(session.spec.id, device=device, seed=seed, minutes=minutes)
    n_references, n_candidates = plan.n_networks()
    announce(app, n_references + n_candidates, plan.estimated_board_s(), session)
    result, report = run_quickstart(lab, session, plan, output)
    verdict = result.verdicts[-1]
    spent_s = SYSTEM_CLOCK.monotonic_s() - started_s
    answer = {
        "device": session.spec.name,
        "soc": session.spec.soc,
        "machine": session.spec.machine,
        "reference_measurements": len(result.profile.architectures),
        "candidates": len(result.fronts[-1].candidates),
        "verified": verdict.n_measured,
        "spearman_predicted_vs_measured": verdict.spearman,
        "kendall_predicted_vs_measured": verdict.kendall,
        "mape_pct": verdict.mape_pct,
        "on_measured_front": sum(row.on_measured_front for row in verdict.candidates),
        "dominated_after_measuring": list(verdict.dominated_after_measuring),
        "hypervolume_predicted": verdict.hypervolume_predicted,
        "hypervolume_measured": verdict.hypervolume_measured,
        "board_s": result.board.wall_s,
        "run": result.run.id,
        "report": str(report),
        "duration_s": spent_s,
        "store": str(app.store_path),
    }

    def draw(console: Console) -> None:
        draw_verdicts(console, [verdict])
        console.print(f"report: {report}", markup=False, soft_wrap=True)
        console.print(
            f"{session.spec.name} ({session.spec.soc}), {duration(spent_s)}; "
            f"run {result.run.id} in {app.store_path}",
            markup=False,
            soft_wrap=True,
        )

    app.show(answer, draw)


def _known_id(app: App, device: str) -> str:
    """Id of the board as far as it is known; "" when it never answered. Writes nothing.

    Raises: ConfigError for an unknown name.
    """
    from hwnas_sdk._resources import home_path
    from hwnas_sdk.devices.inventory import Inventory, find_driver
    from hwnas_sdk.devices.uri import DeviceUri

    if ":" in device:
        find_driver(DeviceUri.parse(device))
    else:
        Inventory(home_path() / "devices.yaml").get(device)
    store = app.db or home_path() / "store.sqlite"
    if not store.is_file():
        return ""
    known = {spec.name: spec.id for spec in app.store(read_only=True).devices()}
    return known.get(device, "")
