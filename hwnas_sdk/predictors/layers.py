"""Layer-wise look-up table: a network takes what its layers take one by one.

What a layer costs alone includes calling the runtime once, which a network pays once: the cost of
calling is measured with a network that does nothing and taken off every layer. What is left out is
what runtimes do across layers: fusing, branches side by side, warm caches. Whoever measured whole
networks too can correct the sum with `LayerTable.calibrated`.

Source: the look-up tables of FBNet and ProxylessNAS, keyed by operator, shapes and attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.unique_layers import unique_layers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerTable:
    """Latency of layers on one device.

    Attributes:
        layer_ms: key -> latency of the layer alone, the cost of calling included.
        calling_ms: latency of a network that does nothing.
        offset_ms: added to every sum.
        slope: what every sum is multiplied with.
    """

    layer_ms: Mapping[str, float]
    calling_ms: float
    offset_ms: float = 0.0
    slope: float = 1.0

    def predict(self, graph: LayerGraph) -> float:
        """Latency of a network, ms.

        Raises: ModelError naming a layer the table does not have.
        """
        total = self.calling_ms
        for unique, count in unique_layers(graph).items():
            alone = self.layer_ms.get(unique.key)
            if alone is None:
                raise ModelError(
                    f"the look-up table has no layer {unique.key!r}",
                    code="layer_unknown",
                    hint="measure the network with `hwnas measure --layers`",
                )
            total += count * max(alone - self.calling_ms, 0.0)
        return self.offset_ms + self.slope * total

    def missing(self, graphs: Iterable[LayerGraph]) -> tuple[str, ...]:
        """Keys of layers of `graphs` that were not measured, each once."""
        keys = (unique.key for graph in graphs for unique in unique_layers(graph))
        return tuple(dict.fromkeys(key for key in keys if key not in self.layer_ms))

    def calibrated(self, graphs: Sequence[LayerGraph], latency_ms: Floats) -> LayerTable:
        """The table with offset and slope >= 0 fitted to whole networks; one gives a slope only.

        Shapes: k graphs, (k,). Raises: ModelError without networks, or for latencies that are not
            positive numbers.
        """
        y = np.asarray(latency_ms, dtype=np.float64)
        if not len(graphs) or y.shape != (len(graphs),):
            raise ModelError(f"{y.shape} latencies for {len(graphs)} networks")
        if not (np.isfinite(y).all() and (y > 0).all()):
            raise ModelError("every measurement must be a positive number")
        plain = replace(self, offset_ms=0.0, slope=1.0)
        x = np.array([plain.predict(graph) for graph in graphs])
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else -1.0
        if slope <= 0:  # one network, or networks the table does not order: scale the sum
            return replace(plain, slope=float(y.mean() / x.mean()))
        return replace(plain, offset_ms=float(y.mean() - slope * x.mean()), slope=slope)
