"""`hwnas measure --layers`: every layer of a network alone, and the look-up table made of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import hwnas_sdk
from hwnas_sdk.core.errors import ConfigError, SpaceError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Architecture, Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_graph
from hwnas_sdk.export.layer_units import LAYER_SPACE, LayerUnit, layer_units
from hwnas_sdk.predictors.layers import LayerTable
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.measure import Target, architecture_target


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLayers:
    """One network, whole and in pieces.

    Attributes:
        arch: official string.
        whole: measurement of the network.
        layers: its pieces (`LayerUnit.n` times each) with their measurements.
    """

    arch: str
    whole: Measurement
    layers: tuple[tuple[LayerUnit, Measurement], ...]

    @property
    def sum_ms(self) -> float | None:
        """Latency of all pieces; None when one has no valid measurement."""
        if any(m.status != "valid" for _, m in self.layers):
            return None
        return sum(unit.n * float(m.latency_ms or 0.0) for unit, m in self.layers)

    @property
    def ratio(self) -> float | None:
        """Sum of the pieces over the whole network; None when one of both is missing."""
        total = self.sum_ms
        if total is None or self.whole.status != "valid" or not self.whole.latency_ms:
            return None
        return total / self.whole.latency_ms


def layer_target(unit: LayerUnit, *, cache: ArtifactCache, batch: int = 1) -> Target:
    """Target for one piece of a network; pieces of several networks share it."""
    return Target(
        unit.id,
        unit.id,
        unit.text,
        lambda: export_graph(unit.graph, cache=cache, batch=batch),
        space=LAYER_SPACE,
    )


def measure_layers(
    lab: Lab,
    archs: Sequence[Architecture],
    *,
    on: DeviceSession,
    settings: MeasureSettings,
    folded: bool = False,
    seed: int = 0,
) -> list[NetworkLayers]:
    """Measure networks and each of their unique layers in one run.

    A network stands in the same job as its first layers; the sentinel of every job says whether
    later ones are comparable. Interrupted, the same call continues.

    Raises: ConfigError for a device that runs no files, SpaceError, ExportError, DeviceError.
    """
    if not on.needs_artifacts:
        raise ConfigError(
            f"{on.spec.name} answers from a table or a model; it cannot run a single layer",
            code="no_layers",
            hint="measure layers on a board or on local:",
        )
    archs = list(dict.fromkeys(archs))
    plan = {
        "sdk_version": hwnas_sdk.__version__,
        "device_id": on.spec.id,
        "targets": [get_space(arch.space).encode(arch) for arch in archs],
        "layers": True,
        "folded": folded,
        "settings": settings.to_json(),
        "seed": seed,
    }
    whole, pieces, targets = [], [], []
    for arch in archs:
        space = get_space(arch.space)
        units = layer_units(_graph(space, arch, folded=folded))
        own = architecture_target(space, arch, cache=lab.cache, folded=folded, batch=settings.batch)
        whole.append(own)
        pieces.append(units)
        targets.append(own)
        targets += [layer_target(u, cache=lab.cache, batch=settings.batch) for u in units]
    run = lab.store.start_run("measure", plan)
    results = lab.measurer(on, run, settings, seed=seed).measure(
        targets, task=f"measure {on.spec.name}"
    )
    lab.store.finish_run(run.id)
    return [
        NetworkLayers(
            arch=target.arch,
            whole=results[target.item],
            layers=tuple((unit, results[unit.id]) for unit in units),
        )
        for target, units in zip(whole, pieces, strict=True)
    ]


def stored_layer_table(
    store: MeasurementStore, *, device_id: str, settings: MeasureSettings
) -> LayerTable:
    """Look-up table of everything a device has measured with `settings`.

    Layers measured more than once become their median. The constant is fitted on every network of
    a space that was measured whole and whose layers are all there.
    """
    layers: dict[str, list[float]] = {}
    networks: list[tuple[str, bool, float]] = []
    for m in store.measurements(device_id=device_id, settings_id=settings.id, valid_only=True):
        form = m.item.rpartition("/")[2]
        if m.arch_id.startswith(f"{LAYER_SPACE}:"):
            layers.setdefault(m.arch_id, []).append(float(m.latency_ms or 0.0))
        elif form in ("folded", "unfolded"):
            networks.append((m.arch_id, form == "folded", float(m.latency_ms or 0.0)))
    graphs, measured_ms = [], []
    for arch_id, folded, latency_ms in networks if layers else ():
        arch = Architecture.of_id(arch_id)
        try:
            graphs.append(_graph(get_space(arch.space), arch, folded=folded))
        except SpaceError:
            continue  # of a space this installation does not have
        measured_ms.append(latency_ms)
    table = {key: statistics.median(values) for key, values in layers.items()}
    return LayerTable.fit(table, graphs, measured_ms)


def _graph(space: SearchSpace, arch: Architecture, *, folded: bool) -> LayerGraph:
    return space.layers(arch, folded=folded)
