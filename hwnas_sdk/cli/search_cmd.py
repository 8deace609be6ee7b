"""`hwnas search`: the best trade-offs for a profiled device, nothing measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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

    plan = make_search_plan(options, seed=seed)
    if dry_run:
        shown = {"device": device, "runtime": runtime, **plan.to_json()}
        show_plan(app, {**shown, "n_evaluations": plan.n_evaluations})
        return
    from hwnas_sdk.cli.render import json_text
    from hwnas_sdk.core.files import write_text_atomic
    from hwnas_sdk.workflows.search import search_front

    app.check_output(output)
    lab = open_lab(app)
    session = lab.device(device)
    believe = lab.beliefs_unmeasured if zero_measurements else lab.beliefs
    beliefs = believe(session, folded=folded, runtime=runtime)
    doubt = beliefs.source or beliefs.warning()
    if doubt:
        app.note(f"warning: {doubt}")
    front = search_front(
        plan.get_space(),
        beliefs,
        plan=plan,
        device_id=session.spec.id,
        on_event=app.progress,
    )
    if output is not None:
        write_text_atomic(output, json_text(front_to_mapping(front)))
    answer = {
        "device": session.spec.name,
        "method": front.method,
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
        title = f"{session.spec.name}: predicted, not measured ({front.method})"
        console.print(table(columns, rows, title=title))
        if output is not None:
            console.print(f"next: hwnas verify {output} --device {device}", markup=False)

    app.show(answer, draw)
