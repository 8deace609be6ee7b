"""Layer-wise look-up table: a network takes what its layers take one by one.

What a layer costs alone includes calling the runtime once, which a network pays once: the cost of
calling is measured with a network that does nothing and taken off every layer. What is left out is
what runtimes do across layers: fusing, branches side by side, warm caches. Whoever measured whole
networks too can correct the sum with `LayerTable.calibrated`.

Source: the look-up tables of FBNet and ProxylessNAS, keyed by operator, shapes and attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ExportError, ModelError
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.layers import Layer, LayerGraph, Shape

Floats = NDArray[np.float64]

_INPUT: Final = "x"
_LAYER: Final = "layer"
_ID_LENGTH: Final = 32
ID_PREFIX: Final = "layer:"


@dataclass(frozen=True, slots=True)
class UniqueLayer:
    """A layer apart from its name and place.

    Attributes:
        key: operator, shapes and attributes in one line; equal layers have equal keys.
        layer: one of them.
        input_shapes: of what it reads, without the batch dimension.
    """

    key: str
    layer: Layer = field(compare=False)
    input_shapes: tuple[Shape, ...] = field(compare=False)

    @property
    def arch_id(self) -> str:
        """Under which the store knows it."""
        return ID_PREFIX + content_id(self.key, length=_ID_LENGTH)

    def graph(self) -> LayerGraph:
        """The layer as a network of its own.

        Raises: ExportError for one that reads tensors of several shapes: such a network would need
            other layers to make them.
        """
        if len(set(self.input_shapes)) != 1:
            raise ExportError(
                f"{self.key}: a layer that reads several shapes cannot be measured alone",
                code="layer_not_alone",
            )
        source = Layer(_INPUT, "input", (), self.input_shapes[0])
        inputs = (_INPUT,) * len(self.input_shapes)
        alone = replace(self.layer, name=_LAYER, inputs=inputs)
        return LayerGraph(self.arch_id, (source, alone), folded=False)


def unique_layers(graph: LayerGraph) -> dict[UniqueLayer, int]:
    """The different layers of a network, in order, and how often it has each."""
    known: dict[str, UniqueLayer] = {}
    counts: dict[str, int] = {}
    for layer in graph.layers[1:]:
        shapes = tuple(graph.by_name[name].shape for name in layer.inputs)
        key = _key(layer, shapes)
        known.setdefault(key, UniqueLayer(key, layer, shapes))
        counts[key] = counts.get(key, 0) + 1
    return {unique: counts[key] for key, unique in known.items()}


def calling(graph: LayerGraph) -> UniqueLayer:
    """A network that hands its input on: what calling the runtime costs."""
    shape = graph.input.shape
    layer = Layer(_LAYER, "identity", (_INPUT,), shape)
    return UniqueLayer(_key(layer, (shape,)), layer, (shape,))


def _key(layer: Layer, input_shapes: Sequence[Shape]) -> str:
    reads = ",".join(_size(shape) for shape in input_shapes)
    parts = [f"{layer.op} {reads}->{_size(layer.shape)}"]
    parts += [f"{name}={_value(layer.attrs[name])}" for name in sorted(layer.attrs)]
    parts += [f"{name}:{_size(layer.params[name])}" for name in sorted(layer.params)]
    return " ".join(parts)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "1"


def _value(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
