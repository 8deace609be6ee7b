"""`hwnas measure`: networks of a space, or your own ONNX file, on a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from hwnas_sdk.cli.options import device_option, dry_run_option, folded_option, seed_option, verb
from hwnas_sdk.core.errors import ConfigError, ExportError, MeasurementError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.types import Architecture, Measurement


@click.command(short_help="Measure networks or your own ONNX file.")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--n",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many networks to draw for a target like space:nasbench201.",
)
@runtime_option()
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True,
              help="Inputs per inference (networks of a space only).")  # fmt: skip
@click.option(
    "--fix-dim",
    "fix_dims",
    multiple=True,
    metavar="NAME=N",
    help="Size of a dynamic dimension of an .onnx TARGET, e.g. N=1 or image:0=1; repeatable.",
)
@click.option("--energy", is_flag=True, help="Measure energy too; needs a power sensor.")
@click.option(
    "--layers",
    is_flag=True,
    help="Measure every different layer of the networks alone too, and compare with the sums.",
)
@settings_options
@folded_option(default=False)
@device_option()
@seed_option()
@dry_run_option()
@verb
def measure(
    app: App,
    *,
    targets: tuple[str, ...],
    n: int,
    runtime: str,
    batch: int,
    fix_dims: tuple[str, ...],
    energy: bool,
    layers: bool,
    settings: str,
    threads: int,
    folded: bool,
    device: str,
    seed: int,
    dry_run: bool,
) -> None:
    """Measure TARGETs on a device.

    A TARGET is an architecture string (or #INDEX) of NAS-Bench-201, space:nasbench201 for --n
    random networks, or the path of an .onnx file (or a .tflite file, on a board with LiteRT's
    benchmark_model as its --runner). Exit 5 when a network got no valid measurement. Interrupted,
    the same command continues.
    """
    chosen = make_settings(settings, threads, runtime=runtime, energy=energy, batch=batch)
    networks = _expand(targets, n, seed)
    if batch != 1 and any(isinstance(network, Path) for network in networks):
        raise ConfigError(
            "--batch is for networks of a space; an .onnx file has its own batch size",
            code="bad_batch",
            hint="export the file with another batch, or fix a dynamic one with --fix-dim N=4",
        )
    parts = n_parts(networks, folded=folded) if layers else len(networks)
    estimate_s = parts * chosen.estimated_s()
    if dry_run:
        if ":" not in device:
            app.inventory().get(device)
        shown = [str(network) for network in targets]
        plan = {"device": device, "targets": shown, "n_networks": parts,
                "settings": settings, "runtime": runtime, "threads": threads, "folded": folded,
                "estimated_board_s": estimate_s}  # fmt: skip
        show_plan(app, plan)
        return
    lab = open_lab(app)
    session = lab.device(device)
    warn_untuned(app, session, chosen)
    announce(app, parts, estimate_s, session)
    if layers:
        from hwnas_sdk.cli.layers_view import measure_layers_and_show

        measure_layers_and_show(
            app, lab, _architectures(networks), session, chosen, folded=folded, seed=seed
        )
        return
    results = lab.measure(
        networks, on=session, settings=chosen, folded=folded, fixed_dims=_dims(fix_dims), seed=seed
    )
    rows = [(lab.store.architecture_text(m.arch_id) or m.arch_id, m) for m in results]
    run_id = results[0].run_id
    answer = {
        "device": session.spec.name,
        "run": run_id,
        "measurements": [_document(arch, m) for arch, m in rows],
    }

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table

        body = [
            (shown_arch(arch, console), m.latency_ms,
             None if m.ci95_ms is None else f"±{m.ci95_ms:.2g}",
             m.latency_p90_ms, m.peak_memory_mib, m.energy_mj, m.n_samples, m.status,
             " ".join(m.flags))
            for arch, m in rows
        ]  # fmt: skip
        columns = ("network", "latency ms", "95 %", "p90 ms", "peak MiB", "energy mJ", "samples",
                   "status", "flags")  # fmt: skip
        console.print(table(columns, body, title=f"{session.spec.name} ({session.origin})"))
        console.print(f"run {run_id}; page: hwnas report {run_id}", markup=False)

    app.show(answer, draw)
    bad = [(arch, m) for arch, m in rows if m.status == "invalid"]
    if bad:
        arch, first = bad[0]
        reason = first.details.get("error_message") or ", ".join(first.flags) or "no latency"
        raise MeasurementError(
            f"{session.spec.name}: {len(bad)} of {len(rows)} networks have no valid measurement; "
            f"first {arch}: {reason}",
            device_id=session.spec.id,
            arch_id=first.arch_id,
            code="invalid_measurements",
            hint="see `hwnas doctor`; the invalid records are kept and shown in the report",
        )


def _architectures(networks: Sequence[Architecture | Path | str]) -> list[Architecture]:
    """Each network once. Raises: ConfigError for a file, whose layers are not known."""
    from hwnas_sdk.core.types import Architecture

    found = [network for network in networks if isinstance(network, Architecture)]
    if len(found) < len(networks):
        raise ConfigError(
            "--layers is for networks of a space; the layers of a file are not known",
            code="bad_target",
            hint="give an architecture string, #INDEX or space:NAME",
        )
    return list(dict.fromkeys(found))


def n_parts(networks: Sequence[Architecture | Path | str], *, folded: bool) -> int:
    """How many networks --layers measures: the networks, their different layers, and nothing."""
    from hwnas_sdk.core.unique_layers import unique_layers
    from hwnas_sdk.spaces import get_space

    found = _architectures(networks)
    keys = {
        unique.key
        for arch in found
        for unique in unique_layers(get_space(arch.space).layers(arch, folded=folded))
    }
    return len(found) + len(keys) + 1


def _dims(texts: Sequence[str]) -> dict[str, int]:
    dims = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        if not equals or not name or not size.isdecimal() or int(size) < 1:
            raise ConfigError(
                f"--fix-dim {text!r} is not NAME=N", code="bad_fixed_dim", hint="e.g. --fix-dim N=1"
            )
        dims[name] = int(size)
    return dims


def _expand(targets: Sequence[str], n: int, seed: int) -> list[Architecture | Path | str]:
    from hwnas_sdk.spaces import get_space

    networks: list[Architecture | Path | str] = []
    for target in targets:
        kind, colon, name = target.partition(":")
        if kind == "space" and colon:
            networks += get_space(name).sample(n, seed=seed)
        elif target.endswith((".onnx", ".tflite")):
            if not Path(target).is_file():
                raise ExportError(
                    f"{target} does not exist",
                    code="model_missing",
                    hint="give a path to a .onnx file",
                )
            networks.append(Path(target))
        elif Path(target).is_file():
            raise ConfigError(
                f"{target} is a file, but its name does not end in .onnx",
                code="bad_target",
                hint="rename it, or convert the model to ONNX first",
            )
        else:
            networks.append(get_space("nasbench201").decode(target))
    return networks


def _document(arch: str, m: Measurement) -> dict[str, Any]:
    return {
        "arch": arch,
        "artifact_sha256": m.artifact_sha256,
        "latency_ms": m.latency_ms,
        "latency_p90_ms": m.latency_p90_ms,
        "latency_iqr_ms": m.latency_iqr_ms,
        "ci95_ms": m.ci95_ms,
        "energy_mj": m.energy_mj,
        "energy_reason": m.energy_reason,
        "peak_memory_mib": m.peak_memory_mib,
        "n_samples": m.n_samples,
        "flags": m.flags,
        "status": m.status,
        "origin": m.origin,
        "runtime": _runtime(m).get("name"),
        "tuned": _runtime(m).get("tuned"),
    }


def _runtime(m: Measurement) -> Mapping[str, Any]:
    """What ran the network; "tuned" is None for runtimes that know no tuning."""
    runtime = m.details.get("runtime")
    return runtime if isinstance(runtime, Mapping) else {}
