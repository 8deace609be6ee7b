"""The different layers of a network, each as a network of its own.

A layer's key says all that its cost can depend on when nothing else runs: operator, shapes and
attributes. It can be read back, so a device that makes its networks itself needs the key only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.layers import OPS, AttrValue, Layer, LayerGraph, Shape

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

    @classmethod
    def of_key(cls, key: str) -> Self:
        """Inverse of `key`, for layers with sizes and whole numbers only, as all that are measured.

        A size of one number and that number alone are written alike, and so read alike.
        Raises: ExportError for a text that is no layer's key.
        """
        op, *rest = key.split(" ")
        try:
            sources, _, made = rest.pop(0).partition("->")
            pairs = [part.partition("=") for part in rest if "=" in part]
            weights = [part.partition(":") for part in rest if "=" not in part]
            shapes = tuple(_read_size(text) for text in sources.split(","))
            layer = Layer(
                _LAYER, op, (_INPUT,) * len(shapes), _read_size(made),
                {name: _read_value(value) for name, _, value in pairs},
                {name: _read_size(size) for name, _, size in weights},
            )  # fmt: skip
        except (ValueError, IndexError) as exc:
            raise ExportError(f"{key!r} is no layer's key", code="layer_unknown") from exc
        if op not in OPS:
            raise ExportError(f"unknown operator {op!r}", code="layer_unknown")
        return cls(key, layer, shapes)

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


def _read_size(text: str) -> Shape:
    return tuple(int(part) for part in text.split("x"))


def _read_value(text: str) -> AttrValue:
    try:
        sizes = _read_size(text)
    except ValueError:
        return float(text)
    return sizes[0] if len(sizes) == 1 else sizes
