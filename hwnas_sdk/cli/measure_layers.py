"""What `hwnas measure --layers` adds: the layers of each network, their sum, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import shown_arch
from hwnas_sdk.core.errors import ConfigError, MeasurementError
from hwnas_sdk.core.types import Architecture

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.settings import MeasureSettings
    from hwnas_sdk.devices.session import DeviceSession
    from hwnas_sdk.workflows.lab import Lab
    from hwnas_sdk.workflows.layers import NetworkLayers


def architectures_of(networks: Sequence[Architecture | Path | str]) -> list[Architecture]:
    """The networks, each once.

    Raises: ConfigError for a file: how it was built is not known, only what it computes.
    """
    archs = [network for network in networks if isinstance(network, Architecture)]
    if len(archs) != len(networks):
        raise ConfigError(
            "--layers is for networks of a space, not for files",
            code="no_layers",
            hint="leave out --layers, or give an architecture string",
        )
    return list(dict.fromkeys(archs))


def count_with_layers(archs: Sequence[Architecture], *, folded: bool) -> int:
    """Networks and their unique layers together."""
    from hwnas_sdk.export.layer_units import layer_units
    from hwnas_sdk.spaces import get_space

    graphs = [get_space(arch.space).layers(arch, folded=folded) for arch in archs]
    return len(archs) + len({unit.id for graph in graphs for unit in layer_units(graph)})


def show_layers(
    app: App,
    lab: Lab,
    session: DeviceSession,
    archs: Sequence[Architecture],
    settings: MeasureSettings,
    *,
    folded: bool,
    seed: int,
) -> None:
    """Measure networks and layers, and show both.

    Raises: MeasurementError when one got no valid measurement.
    """
    from hwnas_sdk.cli.measure_cmd import document
    from hwnas_sdk.workflows.layers import measure_layers, stored_layer_table

    networks = measure_layers(lab, archs, on=session, settings=settings, folded=folded, seed=seed)
    table = stored_layer_table(lab.store, device_id=session.spec.id, settings=settings)
    run_id = networks[0].whole.run_id
    answer = {
        "device": session.spec.name,
        "run": run_id,
        "measurements": [document(network.arch, network.whole) for network in networks],
        "networks": [_network(network) for network in networks],
        "layer_table": {
            "n_layers": len(table.latency_ms),
            "n_networks": table.n_networks,
            "constant_ms": table.constant_ms,
        },
    }

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import table as drawn

        for network in networks:
            rows = [
                (unit.text, unit.n, m.latency_ms, None if m.latency_ms is None
                 else unit.n * m.latency_ms, m.status)
                for unit, m in network.layers
            ]  # fmt: skip
            title = f"{shown_arch(network.arch, console)} on {session.spec.name}"
            columns = ("layer", "times", "latency ms", "together ms", "status")
            console.print(drawn(columns, rows, title=title))
            console.print(
                f"sum of layers {_ms(network.sum_ms)}, whole network "
                f"{_ms(network.whole.latency_ms)}, ratio "
                f"{'-' if network.ratio is None else f'{network.ratio:.2f}'}",
                markup=False,
            )
        console.print(
            f"layer table: {len(table.latency_ms)} layers, constant {table.constant_ms:+.3f} ms "
            f"fitted on {table.n_networks} networks; run {run_id}",
            markup=False,
        )

    app.show(answer, draw)
    every = [(n.arch, n.whole) for n in networks]
    every += [(unit.text, m) for n in networks for unit, m in n.layers]
    bad = [name for name, m in every if m.status == "invalid"]
    if bad:
        raise MeasurementError(
            f"{session.spec.name}: {len(bad)} networks or layers have no valid measurement; "
            f"first {bad[0]}",
            device_id=session.spec.id,
            code="invalid_measurements",
            hint="see `hwnas doctor`; the invalid records are kept",
        )


def _network(network: NetworkLayers) -> dict[str, Any]:
    return {
        "arch": network.arch,
        "latency_ms": network.whole.latency_ms,
        "sum_ms": network.sum_ms,
        "ratio": network.ratio,
        "layers": [
            {
                "layer": unit.text,
                "id": unit.id,
                "times": unit.n,
                "latency_ms": m.latency_ms,
                "ci95_ms": m.ci95_ms,
                "status": m.status,
                "flags": m.flags,
            }
            for unit, m in network.layers
        ],
    }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} ms"
