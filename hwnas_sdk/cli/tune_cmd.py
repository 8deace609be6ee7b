"""`hwnas tune`: make TVM's libraries fast, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import duration, make_settings, open_lab, settings_options, show_plan
from hwnas_sdk.cli.options import device_option, dry_run_option, folded_option, seed_option, verb
from hwnas_sdk.core.errors import MeasurementError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.export.tuning_database import TunedLayer
    from hwnas_sdk.workflows.tune import Speedup


@click.command(short_help="Tune TVM's schedules for a device, each layer once.")
@click.argument("targets", nargs=-1, required=True, metavar="ARCH...")
@click.option(
    "--trials",
    type=click.IntRange(min=1, max=10_000),
    default=16,
    show_default=True,
    help="Schedules to try per layer. 16 is little, about 13 s; 64 and more find better ones.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Then measure the first network untuned and tuned.",
)
@folded_option(default=False)
@settings_options
@device_option()
@seed_option()
@dry_run_option()
@verb
def tune(
    app: App,
    *,
    targets: tuple[str, ...],
    trials: int,
    measure: bool,
    folded: bool,
    settings: str,
    threads: int,
    device: str,
    seed: int,
    dry_run: bool,
) -> None:
    """Tune the layers of ARCHs for a device with TVM's MetaSchedule.

    An ARCH is an architecture string (or #INDEX) of NAS-Bench-201 or the path of an .onnx file.
    Layers that were tuned before, for any network, are skipped; what is found is kept and used by
    every later '--runtime tvm'. Killed, the same command goes on. Keep the machine quiet meanwhile:
    schedules are chosen by their time.
    """
    from hwnas_sdk.workflows.tune import (
        Tuner,
        estimated_s,
        layer_documents,
        mean_factor,
        measure_speedup,
    )

    lab = open_lab(app)
    session = lab.device(device)
    networks = lab.targets(list(targets), folded=folded)
    files = [network.make_artifact().path for network in networks]
    with Tuner(session, files, threads=threads, on_event=app.progress) as tuner:
        listed = tuner.layers()
        todo = [layer for layer in listed if not layer.tuned]
        estimate_s = estimated_s(len(todo), trials)
        where = {"device": session.spec.name, "target": tuner.target.spec,
                 "database": str(tuner.database.folder)}  # fmt: skip
        if dry_run:
            plan = {**where, "n_layers": len(listed), "n_to_tune": len(todo), "trials": trials,
                    "estimated_s": estimate_s,
                    "layers": [f"{layer.name} {layer.shape}" for layer in todo]}  # fmt: skip
            show_plan(app, plan)
            return
        app.note(
            f"about {duration(estimate_s)} for {len(todo)} of {len(listed)} layers "
            f"({trials} trials each; the others are tuned already)"
        )
        result = tuner.tune(trials=trials, seed=seed)
        database_id = tuner.database.id
    speedup: Speedup | None = None
    if measure:
        chosen = make_settings(settings, threads, runtime="tvm")
        speedup = measure_speedup(lab, session, networks[0], chosen)
    answer: dict[str, Any] = {
        **where,
        "database_id": database_id,
        "trials": trials,
        "layers": layer_documents(result.layers),
        "skipped": result.n_skipped,
        "failed": dict(result.failed),
        "mean_factor": mean_factor(result.layers),
        "speedup": None if speedup is None else speedup.factor,
        "network": None
        if speedup is None
        else {
            "arch": speedup.arch,
            "untuned_ms": speedup.untuned_ms,
            "tuned_ms": speedup.tuned_ms,
            "runs": speedup.runs,
        },
    }

    def draw(console: Console) -> None:
        _draw(console, result.layers, result.n_skipped, result.failed, speedup)

    app.show(answer, draw)
    if result.failed and not result.layers and not result.n_skipped:
        name, reason = next(iter(result.failed.items()))
        raise MeasurementError(
            f"{session.spec.name}: no layer could be tuned; first {name}: {reason}",
            device_id=session.spec.id,
            code="nothing_tuned",
            hint="see what TVM says with -v; the network still runs untuned",
        )


def _draw(
    console: Console,
    layers: tuple[TunedLayer, ...],
    n_skipped: int,
    failed: Any,
    speedup: Speedup | None,
) -> None:
    from hwnas_sdk.cli.render import table
    from hwnas_sdk.workflows.tune import layer_factor

    rows = []
    for layer in layers:
        factor = layer_factor(layer)
        gained = None if factor is None else f"{factor:.1f}x"
        rows.append(
            (layer.name, layer.shape, layer.trials, layer.before_us, layer.after_us, gained)
        )
    if rows:
        columns = ("layer", "shape", "trials", "before us", "after us", "faster")
        console.print(table(columns, rows, title="tuned layers"))
    console.print(f"{len(layers)} tuned, {n_skipped} tuned before, {len(failed)} failed")
    for name, reason in failed.items():
        console.print(f"  {name}: {reason}", markup=False)
    if speedup is not None and speedup.factor is not None:
        console.print(
            f"{speedup.arch}: {speedup.untuned_ms:.3g} ms untuned, {speedup.tuned_ms:.3g} ms tuned "
            f"({speedup.factor:.1f}x)",
            markup=False,
        )
