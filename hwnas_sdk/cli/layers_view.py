"""What `hwnas measure --layers` shows: every layer alone, and the sums beside the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwnas_sdk.cli.context import App
from hwnas_sdk.core.errors import MeasurementError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.settings import MeasureSettings
    from hwnas_sdk.core.types import Architecture
    from hwnas_sdk.devices.session import DeviceSession
    from hwnas_sdk.workflows.lab import Lab
    from hwnas_sdk.workflows.layers import LayersResult


def measure_layers_and_show(
    app: App,
    lab: Lab,
    architectures: Sequence[Architecture],
    session: DeviceSession,
    settings: MeasureSettings,
    *,
    folded: bool,
    seed: int,
) -> None:
    """Measure and print. Raises: MeasurementError when a network or a layer has no valid record."""
    from hwnas_sdk.workflows.layers import measure_layers

    result = measure_layers(
        lab, architectures, on=session, settings=settings, folded=folded, seed=seed
    )
    answer = _document(session, result)
    app.show(answer, lambda console: _draw(console, answer))
    bad = [n for n in result.networks if n.measurement.status == "invalid"]
    if bad or result.skipped:
        first = next(iter(result.skipped.items()), None)
        what = f"{first[0]}: {first[1]}" if first else "a whole network"
        raise MeasurementError(
            f"{session.spec.name}: {len(result.skipped)} layers and {len(bad)} networks have no "
            f"valid measurement; first {what}",
            device_id=session.spec.id,
            code="invalid_measurements",
            hint="see `hwnas doctor`; the other records are kept",
        )


def _document(session: DeviceSession, result: LayersResult) -> dict[str, Any]:
    from hwnas_sdk.spaces import get_space

    calling_ms = result.layers[result.calling].latency_ms
    layers = [
        {
            "layer": key,
            "count": sum(network.counts.get(key, 0) for network in result.networks),
            "latency_ms": m.latency_ms,
            "ci95_ms": m.ci95_ms,
            "n_samples": m.n_samples,
            "status": m.status,
            "flags": m.flags,
            "artifact_sha256": m.artifact_sha256,
        }
        for key, m in result.layers.items()
    ]
    networks = [
        {
            "arch": get_space(network.architecture.space).encode(network.architecture),
            "latency_ms": network.measurement.latency_ms,
            "ci95_ms": network.measurement.ci95_ms,
            "status": network.measurement.status,
            "flags": network.measurement.flags,
            "n_layers": sum(network.counts.values()),
            "sum_alone_ms": network.alone_ms,
            "sum_ms": network.sum_ms,
            "ratio": _ratio(network.sum_ms, network.measurement.latency_ms),
            "counts": dict(network.counts),
        }
        for network in result.networks
    ]
    return {
        "device": session.spec.name,
        "origin": session.origin,
        "run": result.run_id,
        "calling_ms": calling_ms,
        "layers": layers,
        "networks": networks,
        "skipped": dict(result.skipped),
    }


def _ratio(total: float | None, whole: float | None) -> float | None:
    return total / whole if total is not None and whole else None


def _draw(console: Console, answer: dict[str, Any]) -> None:
    from hwnas_sdk.cli.lab import shown_arch
    from hwnas_sdk.cli.render import table

    rows = [
        (layer["layer"], layer["count"], layer["latency_ms"],
         None if layer["ci95_ms"] is None else f"±{layer['ci95_ms']:.2g}", layer["status"])
        for layer in answer["layers"]
    ]  # fmt: skip
    title = f"{answer['device']} ({answer['origin']}): layers alone"
    console.print(table(("layer", "count", "latency ms", "95 %", "status"), rows, title=title))
    rows = [
        (shown_arch(network["arch"], console), network["n_layers"], network["latency_ms"],
         network["sum_ms"], network["ratio"])
        for network in answer["networks"]
    ]  # fmt: skip
    columns = ("network", "layers", "latency ms", "sum of layers ms", "sum / latency")
    console.print(table(columns, rows, title="whole networks"))
    console.print(
        f"the cost of calling the runtime, {answer['calling_ms']:.3g} ms, is counted once in a "
        f"sum; run {answer['run']}",
        markup=False,
    )
