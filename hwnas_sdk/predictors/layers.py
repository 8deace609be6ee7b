"""The layer-wise look-up table: a network takes as long as its layers measured alone, and a bit.

The usual baseline (ProxylessNAS, FBNet). It ignores what a runtime saves across layers and what a
warm cache gives, and every layer measured alone pays for one call of the runtime; the constant,
fitted on networks that were measured whole, takes off what is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.export.layer_units import layer_units


@dataclass(frozen=True)
class LayerTable:
    """Latencies of single layers of one device.

    Attributes:
        latency_ms: `LayerUnit.id` -> ms.
        constant_ms: added to every sum; often negative.
        n_networks: whole networks the constant was fitted on.
    """

    latency_ms: Mapping[str, float]
    constant_ms: float = 0.0
    n_networks: int = 0

    @classmethod
    def fit(
        cls,
        latency_ms: Mapping[str, float],
        graphs: Sequence[LayerGraph] = (),
        measured_ms: Sequence[float] = (),
    ) -> LayerTable:
        """Table with the constant that fits whole networks best (the median residual).

        Networks with a layer the table lacks are left out. Unit: ms.
        """
        bare = cls(dict(latency_ms))
        residuals = [
            whole - bare.predict(graph)
            for graph, whole in zip(graphs, measured_ms, strict=True)
            if not bare.missing(graph)
        ]
        constant = float(np.median(residuals)) if residuals else 0.0
        return cls(bare.latency_ms, constant, len(residuals))

    def missing(self, graph: LayerGraph) -> list[str]:
        """Layers of a network that were never measured, as text."""
        return [unit.text for unit in layer_units(graph) if unit.id not in self.latency_ms]

    def predict(self, graph: LayerGraph) -> float:
        """Latency of a network in ms.

        Raises: ModelError that names a layer without a measurement.
        """
        units = layer_units(graph)
        lacking = [unit.text for unit in units if unit.id not in self.latency_ms]
        if lacking:
            raise ModelError(
                f"layer table: {len(lacking)} of {len(units)} layers were not measured; "
                f"first {lacking[0]}",
                code="layer_missing",
                hint="measure a network that has it with `hwnas measure ARCH --layers`",
            )
        return self.constant_ms + sum(unit.n * self.latency_ms[unit.id] for unit in units)
