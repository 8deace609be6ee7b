"""`hwnas search`: the best trade-offs for a profiled device, nothing measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import (
    make_search_plan,
    open_lab,
    runtime_option,
    search_options,
    show_plan,
    shown_arch,
)
from hwnas_sdk.cli.options import device_option, dry_run_option, folded_option, seed_option, verb
from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="Search the best trade-offs for a device.")
@search_options
@folded_option(default=True)
@runtime_option("Which profile of the device to start from.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the front as JSON, the input of 'hwnas verify'.",
)
@click.option(
    "--zero-measurements",
    is_flag=True,
    help="Start from the closest known profile of another device; nothing measured on this one.",
)
@click.option(
    "--family",
    metavar="NAME",
    help="With --zero-measurements, instead of --device: search for a device that cannot be "
    "reached, by its family (x86, aarch64, raspberry_pi, jetson, android, ..).",
)
@click.option("--chip", metavar="NAME", help="With --family: its chip, as 'devices list' names it.")
@device_option()
@seed_option()
@dry_run_option()
@verb
def search(
    app: App,
    *,
    output: Path | None,
    device: str,
    folded: bool,
    runtime: str,
    zero_measurements: bool,
    family: str | None,
    chip: str | None,
    seed: int,
    dry_run: bool,
    **options: Any,
) -> None:
    """Search the best trade-offs for a device from its profile; nothing is measured.

    The device needs a profile (see 'hwnas profile'), or --zero-measurements. Latencies are
    predicted from it, errors by a model of CIFAR-10 accuracies; 'hwnas verify' measures the
    candidates.
    """
    from hwnas_sdk.workflows.fronts import front_rows, front_to_mapping

    _check_description(family, chip, zero_measurements=zero_measurements)
    plan = make_search_plan(options, seed=seed)
    if zero_measurements and plan.prior is not None:
        raise ConfigError(
            "--prior is for a device with a profile; --zero-measurements starts from another's",
            hint="leave one of them out, or measure a profile with `hwnas profile NAME`",
        )
    described = None if family is None else open_lab(app).described(family, chip or "")
    if dry_run:
        device = device if family is None else " ".join(filter(None, (family, chip)))
        shown = {"device": device, "runtime": runtime, **plan.to_json()}
        show_plan(app, {**shown, "n_evaluations": plan.n_evaluations})
        return
    from hwnas_sdk.cli.render import json_text
    from hwnas_sdk.core.files import write_text_atomic
    from hwnas_sdk.workflows.priors import load_prior
    from hwnas_sdk.workflows.search import search_front

    app.check_output(output)
    lab = open_lab(app)
    if described is None:
        session = lab.device(device)
        spec = session.spec
        if zero_measurements:
            beliefs = lab.beliefs_unmeasured(session, folded=folded, runtime=runtime)
        else:
            prior = load_prior(plan.prior)
            beliefs = lab.beliefs(session, folded=folded, runtime=runtime, prior=prior)
    else:
        spec = described
        beliefs = lab.beliefs_unmeasured(spec, folded=folded, runtime=runtime)
    doubt = beliefs.source or beliefs.warning()
    if doubt:
        app.note(f"warning: {doubt}")
    front = search_front(
        plan.get_space(),
        beliefs,
        plan=plan,
        device_id=spec.id,
        on_event=app.progress,
    )
    if output is not None:
        write_text_atomic(output, json_text(front_to_mapping(front)))
    answer = {
        "device": spec.name,
        "method": front.method,
        "prior": None if plan.prior is None else str(plan.prior),
        "objectives": front.objectives,
        "front": front_rows(front),
        "n_evaluations": front.n_evaluations,
        "duration_s": front.duration_s,
        "provenance": front.provenance,
        "zero_measurements": zero_measurements,
        "warning": doubt or None,
        "path": None if output is None else str(output),
    }

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        rows = [
            (shown_arch(row["arch"], console), row["error_pct"], row["latency_ms"],
             row["latency_sd_ms"],
             row["energy_mj"], row["peak_memory_mib"])
            for row in front_rows(front)
        ]  # fmt: skip
        columns = ("network", "error %", "latency ms", "sd ms", "energy mJ", "peak MiB")
        title = f"{spec.name}: predicted, not measured ({front.method})"
        console.print(table(columns, rows, title=title))
        if output is not None and family is None:
            console.print(f"next: hwnas verify {output} --device {device}", markup=False)

    app.show(answer, draw)


def _check_description(family: str | None, chip: str | None, *, zero_measurements: bool) -> None:
    """Raise click.UsageError where a description of the device is of no use."""
    if chip is not None and family is None:
        raise click.UsageError("--chip goes with --family, for a device that cannot be reached")
    if family is None:
        return
    if not zero_measurements:
        raise click.UsageError("--family describes a device nobody measured: --zero-measurements")
    source = click.get_current_context().get_parameter_source("device")
    if source is not ParameterSource.DEFAULT:
        raise click.UsageError("--family describes the device: leave out --device")
