"""`hwnas profile`: how a device behaves on the reference networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import (
    announce,
    make_settings,
    open_lab,
    runtime_option,
    settings_options,
    show_plan,
    shown_arch,
    warn_untuned,
)
from hwnas_sdk.cli.options import dry_run_option, seed_option, verb
from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.workflows.active_profile import ActivePlan


@click.command(short_help="Measure the reference networks on a device.")
@click.argument("name", default="local")
@click.option(
    "--references",
    type=click.Choice(["ours", "paper", "both"]),
    default="ours",
    show_default=True,
    help="Reference set: ours (10 networks, designed for prediction), the papers' ten, or both.",
)
@click.option(
    "--active",
    is_flag=True,
    help="Choose each next network by what it is expected to teach, instead of a fixed set.",
)
@click.option(
    "--precision",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PCT",
    help="With --active: stop when predictions are this precise (median half-width of the 90 % "
    "intervals over the space).  [default: 10]",
)
@click.option(
    "--max-networks",
    type=click.IntRange(min=7),
    metavar="N",
    help="With --active: measure at most this many networks.  [default: 20]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the profile as YAML, the form of the shipped profiles.",
)
@runtime_option()
@settings_options
@seed_option()
@dry_run_option()
@verb
def profile(
    app: App,
    *,
    name: str,
    references: str,
    active: bool,
    precision: float | None,
    max_networks: int | None,
    output: Path | None,
    runtime: str,
    settings: str,
    threads: int,
    seed: int,
    dry_run: bool,
) -> None:
    """Measure the reference networks on device NAME, store and print its profile.

    Searches and predictions for the device start from its newest profile. Interrupted, the same
    command continues. With --active it measures until predictions are precise enough or the budget
    is spent, and says which.
    """
    from hwnas_sdk.workflows.profile import reference_architectures
    from hwnas_sdk.workflows.profile_file import save_profile

    chosen = make_settings(settings, threads, runtime=runtime)
    limits = _active_plan(active=active, precision=precision, max_networks=max_networks)
    n = limits.max_networks if limits else len(reference_architectures(references))
    estimate_s = n * chosen.estimated_s()
    if dry_run:
        plan = {"device": name, "references": "active" if limits else references,
                **({} if limits is None else limits.to_json()), "n_networks": n, "runtime": runtime,
                "settings": settings, "threads": threads,
                "estimated_board_s": estimate_s}  # fmt: skip
        show_plan(app, plan)
        return
    app.check_output(output)
    lab = open_lab(app)
    session = lab.device(name)
    warn_untuned(app, session, chosen)
    announce(app, n, estimate_s, session.spec.name)
    result = lab.profile(session, references=references, active=limits, settings=chosen, seed=seed)
    if output is not None:
        save_profile(result, output)
    answer = {
        "device": result.name,
        "device_id": result.device_id,
        "runtime": result.runtime,
        "reference_set": result.reference_set,
        "architectures": result.architectures,
        "latency_ms": result.latency_ms,
        "ci95_ms": result.ci95_ms,
        "energy_mj": result.energy_mj,
        "energy_reason": session.spec.power_reason,
        "peak_memory_mib": result.peak_memory_mib,
        "flags": result.flags,
        "missing": result.missing,
        "selection": dict(result.selection),
        "origin": result.origin,
        "measured_at": result.measured_at,
        "path": None if output is None else str(output),
    }

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        rows = zip(
            (shown_arch(arch, console) for arch in result.architectures),
            result.latency_ms,
            (None if ci is None else f"±{ci:.2g}" for ci in result.ci95_ms),
            result.peak_memory_mib,
            strict=True,
        )
        title = f"{result.name}: reference set {result.reference_set} ({result.origin})"
        console.print(table(("network", "latency ms", "95 %", "peak MiB"), rows, title=title))
        if result.missing:
            console.print(f"without a valid measurement: {', '.join(result.missing)}", markup=False)
        if result.selection:
            console.print(_why_it_ended(result.selection), markup=False)
        if output is not None:
            console.print(f"profile written to {output}", markup=False)

    app.show(answer, draw)


def _active_plan(
    *, active: bool, precision: float | None, max_networks: int | None
) -> ActivePlan | None:
    """Limits of an active profile; None for a fixed reference set."""
    from hwnas_sdk.workflows.active_profile import ActivePlan

    given = {"precision_pct": precision, "max_networks": max_networks}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if changes and not active:
        raise ConfigError(
            "--precision and --max-networks are for an active profile",
            code="not_active",
            hint="add --active",
        )
    return ActivePlan(**changes) if active else None


def _why_it_ended(selection: Mapping[str, Any]) -> str:
    """One line on the precision of an active profile."""
    reached, noise = selection["reached_pct"], selection["noise_pct"]
    shown = "unknown" if reached is None else f"±{reached:.1f} %"
    why = {
        "precision": "that is what was asked for",
        "max_networks": f"the budget is spent (asked for: {selection['precision_pct']:g} %)",
    }.get(selection["stopped"], "no network is left to measure")
    floor = "" if noise is None else f"; scatter of one measurement alone: ±{noise:.1f} %"
    return f"{selection['n_networks']} networks, predictions precise to {shown}: {why}{floor}"
