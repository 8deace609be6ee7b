"""Latency and energy of whole networks: the sum over their layers, each layer evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.simulators.cost_cache import CostCache
from hwnas_sdk.simulators.description import AcceleratorDescription
from hwnas_sdk.simulators.elementwise import elementwise_cost
from hwnas_sdk.simulators.residency import stays_on_chip
from hwnas_sdk.simulators.workload import (
    FREE,
    ArrayWork,
    ElementWork,
    NoWork,
    Pooling,
    Work,
    work_of,
)
from hwnas_sdk.simulators.zigzag_engine import NAME, ArrayCost, ZigZagEngine, engine_version

PJ_PER_MJ = 1e9
Kind = Literal["engine", "modelled", "free"]
_TOLD_APART = ("zero", "input")
"""Sources that change what a layer costs: a removed constant, and the network's own input."""
Signature = tuple[Any, ...]
"""Equal for layers of equal cost."""
Tally = dict[Signature, tuple[Layer, tuple[Layer, ...], int]]
"""Signature -> a layer that has it, its inputs, and how many layers have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        op: operator of the layer.
        kind: "engine", evaluated by the engine; "modelled", by `elementwise_cost`; "free".
        work: what was asked for.
        latency_ms, energy_mj: its share of the network's; energy by the description's scope.
        outer_energy_mj: energy of the outermost memory, whatever the scope.
        outer_bytes: moved to and from the outermost memory.
        macs: multiply-accumulates.
        note: the chosen mapping, or why it is free.
    """

    op: str
    kind: Kind
    work: Work
    latency_ms: float = 0.0
    energy_mj: float = 0.0
    outer_energy_mj: float = 0.0
    outer_bytes: float = 0.0
    macs: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """Cost of a network: different layers with how often each occurs."""

    layers: tuple[tuple[LayerCost, int], ...]

    @property
    def latency_ms(self) -> float:
        """Sum over layers; they run one after the other."""
        return sum(cost.latency_ms * n for cost, n in self.layers)

    @property
    def energy_mj(self) -> float:
        """Sum over layers."""
        return sum(cost.energy_mj * n for cost, n in self.layers)

    @property
    def outer_energy_mj(self) -> float:
        """Energy of the outermost memory, whatever the scope."""
        return sum(cost.outer_energy_mj * n for cost, n in self.layers)

    def by_op(self) -> dict[str, dict[str, Any]]:
        """Operator -> kind, number of layers, latency and energy: how each layer was costed."""
        rows: dict[str, dict[str, Any]] = {}
        for cost, n in self.layers:
            key = cost.op if cost.kind != "engine" or cost.op == "conv" else f"{cost.op} as conv"
            row = rows.setdefault(
                key, {"kind": cost.kind, "n": 0, "latency_ms": 0.0, "energy_mj": 0.0}
            )
            row["n"] += n
            row["latency_ms"] += cost.latency_ms * n
            row["energy_mj"] += cost.energy_mj * n
            if cost.kind == "free":
                row["why"] = cost.note
        return rows


class Simulator:
    """Costs networks on one described accelerator.

    Args:
        description: the accelerator.
        cache_folder: where layer costs are kept between processes; None keeps them in memory only.
        pooling: how pooling is costed.
        evaluate: evaluates a layer; by default the engine, once per layer and description.

    Raises: MissingExtraError without the extra ``sim``.
    """

    def __init__(
        self,
        description: AcceleratorDescription,
        *,
        cache_folder: Path | None = None,
        pooling: Pooling = "modelled",
        evaluate: Callable[[ArrayWork], ArrayCost] | None = None,
    ) -> None:
        """See the class."""
        self.description = description
        self.pooling: Pooling = pooling
        self.engine_version = engine_version() if evaluate is None else "none"
        self._evaluate = evaluate or ZigZagEngine(description).evaluate
        self._cache = None
        if cache_folder is not None:
            self._cache = CostCache(cache_folder, description, self.engine_version)
        self._array_costs: dict[ArrayWork, ArrayCost] = {}
        self._by_signature: dict[Signature, LayerCost] = {}
        self._free = frozenset([*FREE, *description.elementwise.fused])
        self.n_evaluated = 0

    def cost(self, graph: LayerGraph) -> NetworkCost:
        """Cost of one inference, batch 1.

        Raises: ExportError for a layer that cannot be simulated.
        """
        return self.price(self.tally(graph))

    def tally(self, graph: LayerGraph) -> Tally:
        """Different layers of `graph` and how often each occurs.

        The same for every simulator whose accelerator fuses the same operators.
        """
        counts: Tally = {}
        free, by_name = self._free, graph.by_name
        for layer in graph.layers:
            # Whole spaces pass through here: what is free needs no look at shapes.
            if layer.op in free:
                key: Signature = (layer.op,)
                inputs: tuple[Layer, ...] = ()
            else:
                inputs = tuple([by_name[name] for name in layer.inputs])
                key = _signature(layer, inputs)
            known = counts.get(key)
            counts[key] = (layer, inputs, 1) if known is None else (*known[:2], known[2] + 1)
        return counts

    def price(self, tally: Tally) -> NetworkCost:
        """Cost of a network whose layers are counted already.

        Raises: ExportError for a layer that cannot be simulated.
        """
        known = self._by_signature
        layers = []
        for key, (layer, inputs, n) in tally.items():
            if key not in known:
                known[key] = self._layer_cost(layer, inputs)
            layers.append((known[key], n))
        return NetworkCost(tuple(layers))

    def facts(self) -> Mapping[str, Any]:
        """What every record says of the simulation, as plain JSON."""
        return {
            "accelerator": self.description.name,
            "description": self.description.content_hash,
            "engine": NAME,
            "engine_version": self.engine_version,
            "clock_mhz": self.description.clock_mhz,
            "pooling": self.pooling,
            "feature_maps": self.description.feature_maps,
            "energy_scope": self.description.energy.scope,
            "energy_model": "per_access" if self.description.energy.power_w is None else "power",
        }

    def _layer_cost(self, layer: Layer, inputs: tuple[Layer, ...]) -> LayerCost:
        work = work_of(
            layer, inputs, pooling=self.pooling, fused=self.description.elementwise.fused
        )
        if not isinstance(work, NoWork) and stays_on_chip(work, inputs, self.description):
            work = replace(work, on_chip=True)
        if isinstance(work, ArrayWork):
            array = self._array_cost(work)
            return self._priced(
                layer.op, "engine", work, array.cycles, array.energy_pj,
                array.outer_energy_pj, array.outer_bytes, macs=work.macs, note=array.unrolling,
            )  # fmt: skip
        if isinstance(work, ElementWork):
            element = elementwise_cost(work, self.description)
            return self._priced(
                layer.op, "modelled", work, element.cycles, element.energy_pj,
                element.outer_energy_pj, element.outer_bytes,
            )  # fmt: skip
        return LayerCost(op=layer.op, kind="free", work=work, note=work.reason)

    def _priced(
        self,
        op: str,
        kind: Kind,
        work: Work,
        cycles: float,
        energy_pj: float,
        outer_pj: float,
        outer_bytes: float,
        *,
        macs: int = 0,
        note: str = "",
    ) -> LayerCost:
        energy = self.description.energy
        latency_ms = cycles / self.description.clock_mhz / 1e3
        counted_pj = energy_pj - (outer_pj if energy.scope == "chip" else 0.0)
        return LayerCost(
            op=op,
            kind=kind,
            work=work,
            latency_ms=latency_ms,
            energy_mj=counted_pj / PJ_PER_MJ
            if energy.power_w is None
            else energy.power_w * latency_ms,
            outer_energy_mj=outer_pj / PJ_PER_MJ,
            outer_bytes=outer_bytes,
            macs=macs,
            note=note,
        )

    def _array_cost(self, work: ArrayWork) -> ArrayCost:
        """Cost from memory, else from disk, else from the engine."""
        if work not in self._array_costs:
            cost = self._cache.get(work) if self._cache else None
            if cost is None:
                cost = self._evaluate(work)
                self.n_evaluated += 1
                if self._cache:
                    self._cache.put(work, cost)
            self._array_costs[work] = cost
        return self._array_costs[work]


def _signature(layer: Layer, inputs: tuple[Layer, ...]) -> Signature:
    return (
        layer.op,
        layer.shape,
        tuple([(source.op in _TOLD_APART and source.op, source.shape) for source in inputs]),
        tuple(layer.attrs.items()),
        layer.params.get("weight"),
    )
