"""Measuring the layers of networks one by one, and the look-up table they make.

Each different layer becomes a network of its own and goes the way of every measurement: it is
stored, an interrupted run continues, and a second network pays only for the layers it adds within
one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hwnas_sdk
from hwnas_sdk.core.errors import ConfigError, DataError, ExportError
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Architecture, Artifact, Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_graph
from hwnas_sdk.predictors.layers import ID_PREFIX, LayerTable, UniqueLayer, calling, unique_layers
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.workflows.measure import Target, architecture_target

if TYPE_CHECKING:
    from hwnas_sdk.workflows.lab import Lab


@dataclass(frozen=True)
class NetworkSum:
    """A network beside the sum of its layers.

    Attributes:
        architecture: which.
        measurement: of the whole network.
        counts: layer key -> how often the network has it.
        alone_ms: sum of its layers as measured alone, each with the cost of calling the runtime.
        sum_ms: the same with that cost counted once (`LayerTable.predict`).
    """

    architecture: Architecture
    measurement: Measurement
    counts: Mapping[str, int]
    alone_ms: float | None
    sum_ms: float | None


@dataclass(frozen=True)
class LayersResult:
    """What `measure_layers` found.

    `layers` are measurements by layer key; `skipped` says why a layer has none; `calling` is the
    key of the network that does nothing. Sums are None where a layer of the network is missing.
    """

    run_id: str
    layers: Mapping[str, Measurement]
    skipped: Mapping[str, str]
    calling: str
    networks: tuple[NetworkSum, ...]


def layer_target(unique: UniqueLayer, *, cache: ArtifactCache, batch: int = 1) -> Target:
    """Target for one layer."""
    graph = unique.graph()

    def make() -> Artifact:
        return export_graph(graph, cache=cache, batch=batch)

    return Target(unique.arch_id, unique.arch_id, unique.key, make)


def measure_layers(
    lab: Lab,
    architectures: Sequence[Architecture],
    *,
    on: DeviceSession,
    settings: MeasureSettings,
    folded: bool = False,
    seed: int = 0,
) -> LayersResult:
    """Measure every different layer of some networks, and the networks, on one device.

    Interrupted, the same call continues.

    Raises: ConfigError for a device that runs no files; SpaceError, ExportError, DeviceError;
        DataError when the cost of calling the runtime got no valid measurement.
    """
    if not on.needs_artifacts:
        raise ConfigError(
            f"{on.spec.name} looks up whole networks; it cannot run a layer",
            code="no_layers",
            hint="name a real board, or local:",
        )
    graphs = [get_space(a.space).layers(a, folded=folded) for a in architectures]
    nothing = calling(graphs[0])
    wanted = {nothing.key: nothing}
    counts: list[dict[str, int]] = []
    for graph in graphs:
        layers = unique_layers(graph)
        wanted.update({unique.key: unique for unique in layers})
        counts.append({unique.key: count for unique, count in layers.items()})
    targets: dict[str, Target] = {}
    skipped: dict[str, str] = {}
    for key, unique in wanted.items():
        try:
            targets[key] = layer_target(unique, cache=lab.cache, batch=settings.batch)
        except ExportError as exc:
            skipped[key] = exc.message
    wholes = [
        architecture_target(
            get_space(a.space), a, cache=lab.cache, folded=folded, batch=settings.batch
        )
        for a in architectures
    ]
    plan = {
        "sdk_version": hwnas_sdk.__version__,
        "device_id": on.spec.id,
        "layers": True,
        "items": [target.item for target in [*wholes, *targets.values()]],
        "targets": [target.arch for target in wholes],
        "folded": folded,
        "settings": settings.to_json(),
        "seed": seed,
    }
    run = lab.store.start_run("measure", plan)
    results = lab.measurer(on, run, settings, seed=seed).measure(
        [*wholes, *targets.values()], task=f"measure layers on {on.spec.name}"
    )
    lab.store.finish_run(run.id)
    measured = {key: results[target.item] for key, target in targets.items()}
    valid = {
        key: float(m.latency_ms)
        for key, m in measured.items()
        if m.status == "valid" and m.latency_ms is not None
    }
    skipped |= {key: _why(m) for key, m in measured.items() if key not in valid}
    if nothing.key not in valid:
        raise DataError(
            f"{on.spec.name}: what calling the runtime costs was not measured: "
            f"{skipped[nothing.key]}",
            code="layer_unmeasured",
        )
    table = LayerTable(valid, valid[nothing.key])
    networks = []
    for arch, graph, target, count in zip(architectures, graphs, wholes, counts, strict=True):
        complete = not table.missing([graph])
        alone = sum(n * valid[key] for key, n in count.items()) if complete else None
        total = table.predict(graph) if complete else None
        networks.append(NetworkSum(arch, results[target.item], count, alone, total))
    return LayersResult(run.id, measured, skipped, nothing.key, tuple(networks))


def stored_layer_table(
    store: MeasurementStore, device_id: str, settings: MeasureSettings, *, calling_key: str
) -> LayerTable:
    """Look-up table of all layers ever measured on a device in one way; the newest record counts.

    Raises: DataError when the cost of calling (`predictors.layers.calling`) was not measured.
    """
    found: dict[str, float] = {}
    for m in store.measurements(device_id=device_id, settings_id=settings.id, valid_only=True):
        if m.arch_id.startswith(ID_PREFIX) and m.latency_ms is not None:
            key = store.architecture_text(m.arch_id)
            assert key is not None
            found[key] = m.latency_ms
    if calling_key not in found:
        raise DataError(
            f"device {device_id} has no layers measured with these settings",
            code="no_layers",
            hint="measure them with `hwnas measure --layers`",
        )
    return LayerTable(found, found[calling_key])


def _why(m: Measurement) -> str:
    return str(m.details.get("error_message") or ", ".join(m.flags) or "no latency")
