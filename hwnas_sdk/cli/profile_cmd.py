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
from hwnas_sdk.cli.options import dry_run_option, prior_option, seed_option, verb

if TYPE_CHECKING:
    from rich.console import Console

_PRECISION_PCT = 3.0
_MAX_NETWORKS = 20


@click.command(short_help="Measure the reference networks on a device.")
@click.argument("name", default="local")
@click.option(
    "--references",
    type=click.Choice(["ours", "paper", "both"]),
    help="Reference set: ours (10 networks, designed for prediction), the papers' ten, or both.  "
    "[default: ours]",
)
@click.option(
    "--active",
    is_flag=True,
    help="Choose each network by the values measured before, until --precision or --max-networks.",
)
@click.option(
    "--precision",
    "precision_pct",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PCT",
    help="With --active: stop when a typical prediction is this certain (standard deviation), not "
    f"before 10 networks.  [default: {_PRECISION_PCT:g}]",
)
@click.option(
    "--max-networks",
    type=click.IntRange(min=5),
    help=f"With --active: measure no more than this many.  [default: {_MAX_NETWORKS}]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the profile as YAML, the form of the shipped profiles.",
)
@click.option("--energy", is_flag=True, help="Measure energy too; needs a power sensor.")
@prior_option()
@runtime_option()
@settings_options
@seed_option()
@dry_run_option()
@verb
def profile(
    app: App,
    *,
    name: str,
    references: str | None,
    active: bool,
    precision_pct: float | None,
    max_networks: int | None,
    output: Path | None,
    energy: bool,
    prior: Path | None,
    runtime: str,
    settings: str,
    threads: int,
    seed: int,
    dry_run: bool,
) -> None:
    """Measure the reference networks on device NAME, store and print its profile.

    Searches and predictions for the device start from its newest profile. --prior is what --active
    chooses by, and what says whether the device is like the known ones; the measurements do not
    depend on it. Interrupted, the same command continues.
    """
    from hwnas_sdk.workflows.priors import load_prior
    from hwnas_sdk.workflows.profile import reference_architectures
    from hwnas_sdk.workflows.profile_file import save_profile

    if active and references is not None:
        raise click.UsageError("--active chooses the networks itself: leave out --references")
    if not active and (precision_pct is not None or max_networks is not None):
        raise click.UsageError("--precision and --max-networks end an active profile: add --active")
    references = references or "ours"
    precision_pct = precision_pct or _PRECISION_PCT
    max_networks = max_networks or _MAX_NETWORKS
    chosen = make_settings(settings, threads, runtime=runtime, energy=energy)
    known_devices = load_prior(prior)
    n = max_networks if active else len(reference_architectures(references))
    estimate_s = n * chosen.estimated_s()
    if dry_run:
        chosen_by = "active" if active else references
        plan = {"device": name, "references": chosen_by, "n_networks": n, "runtime": runtime,
                "settings": settings, "threads": threads,
                "estimated_board_s": estimate_s}  # fmt: skip
        show_plan(app, plan)
        return
    app.check_output(output)
    lab = open_lab(app)
    session = lab.device(name)
    warn_untuned(app, session, chosen)
    announce(app, n, estimate_s, session)
    if active:
        from hwnas_sdk.workflows.active import profile_actively

        result = profile_actively(
            lab, session, settings=chosen, precision_pct=precision_pct, max_networks=max_networks,
            seed=seed, prior=None if prior is None else known_devices,
        )  # fmt: skip
    else:
        result = lab.profile(session, references=references, settings=chosen, seed=seed)
    doubt = lab.beliefs(session, runtime=runtime, prior=known_devices).warning()
    if doubt:
        app.note(f"warning: {doubt}")
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
        "warning": doubt or None,
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


def _why_it_ended(selection: Mapping[str, Any]) -> str:
    """One line on the precision of an active profile."""
    from hwnas_sdk.workflows.beliefs import SURPRISING

    asked, reached = selection["precision_pct"], selection["reached_pct"]
    why = "as asked for"
    if selection["stopped"] != "precision":
        why = f"the budget is spent (asked for: {asked:g} %)"
        if selection["surprise"] < SURPRISING:
            why = "not to be relied on, as it looks like no known device; the budget is spent"
    return (
        f"{selection['n_networks']} networks; a typical prediction is certain to "
        f"{reached:.1f} %: {why}"
    )
