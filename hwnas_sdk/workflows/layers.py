"""Measuring the layers of networks one by one, and the look-up table they make.

Each different layer becomes a network of its own and goes the way of every measurement: it is
stored, an interrupted run continues, and a second network pays only for the layers it adds. What
the store has already (`stored_items`) can stand for measuring it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hwnas_sdk
from hwnas_sdk.core.errors import ConfigError, DataError, ExportError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Architecture, Artifact, Measurement
from hwnas_sdk.core.unique_layers import UniqueLayer, calling, unique_layers
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_graph
from hwnas_sdk.predictors.layers import LayerTable
from hwnas_sdk.simulators.workload import without_constants
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
        graph: its layers, as the device has them.
        measurement: of the whole network.
        counts: layer key -> how often the network has it.
        alone_ms: sum of its layers as measured alone, each with the cost of calling the runtime.
        sum_ms: the same with that cost counted once (`LayerTable.predict`).
    """

    architecture: Architecture
    graph: LayerGraph
    measurement: Measurement
    counts: Mapping[str, int]
    alone_ms: float | None
    sum_ms: float | None


@dataclass(frozen=True)
class LayersResult:
    """What `measure_layers` found.

    `layers` are measurements by layer key; `skipped` says why a layer has none; `calling` is the
    key of the network that does nothing. Sums are None where a layer of the network is missing.
    `run_id` is empty when all was known and nothing had to be measured.
    """

    run_id: str
    layers: Mapping[str, Measurement]
    skipped: Mapping[str, str]
    calling: str
    networks: tuple[NetworkSum, ...]
    table: LayerTable
    n_measured: int


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
    known: Mapping[str, Measurement] | None = None,
) -> LayersResult:
    """Measure every different layer of some networks, and the networks, on one device.

    Interrupted, the same call continues. `known` are measurements that are taken as they are, by
    item, see `stored_items`.

    Raises: ConfigError for a device that knows whole networks only; SpaceError, ExportError,
        DeviceError; DataError when the cost of calling the runtime got no valid measurement.
    """
    if not (on.needs_artifacts or _is_simulator(on)):
        raise ConfigError(
            f"{on.spec.name} looks up whole networks; it cannot run a layer",
            code="no_layers",
            hint="name a real board, local: or a simulator",
        )
    given = known or {}
    dataset = _dataset(on)
    graphs = [get_space(a.space).layers(a, dataset=dataset, folded=folded) for a in architectures]
    if _is_simulator(on):
        graphs = [without_constants(graph) for graph in graphs]
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
    everything = [*wholes, *targets.values()]
    results = {target.item: given[target.item] for target in everything if target.item in given}
    missing = [target for target in everything if target.item not in results]
    run_id = ""
    if missing:
        run = lab.store.start_run("measure", plan)
        results |= lab.measurer(on, run, settings, seed=seed).measure(
            missing, task=f"measure layers on {on.spec.name}"
        )
        lab.store.finish_run(run.id)
        run_id = run.id
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
            hint="make the board quiet (see `hwnas doctor`) and give the same command again",
        )
    table = LayerTable(valid, valid[nothing.key])
    networks = []
    for arch, graph, target, count in zip(architectures, graphs, wholes, counts, strict=True):
        complete = not table.missing([graph])
        alone = sum(n * valid[key] for key, n in count.items()) if complete else None
        total = table.predict(graph) if complete else None
        networks.append(NetworkSum(arch, graph, results[target.item], count, alone, total))
    return LayersResult(
        run_id, measured, skipped, nothing.key, tuple(networks), table, len(missing)
    )


def stored_items(
    store: MeasurementStore, device_id: str, settings: MeasureSettings
) -> dict[str, Measurement]:
    """All that was ever validly measured on a device in one way, by item; the newest counts.

    The items of layers and of whole networks outside loops name what they are, so one run's are
    another's.
    """
    found = store.measurements(device_id=device_id, settings_id=settings.id, valid_only=True)
    return {m.item: m for m in found}


def _is_simulator(on: DeviceSession) -> bool:
    """Whether the device costs layers by a model; an emulated board runs files."""
    return not on.needs_artifacts and on.spec.family == "simulator"


def _dataset(on: DeviceSession) -> str | None:
    """What a simulator takes for its networks' input; None for the space's default."""
    named = on.spec.details["dataset"] if _is_simulator(on) else "default"
    return None if named == "default" else str(named)


def _why(m: Measurement) -> str:
    return str(m.details.get("error_message") or ", ".join(m.flags) or "no latency")
