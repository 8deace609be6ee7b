"""One generic torch module for every `LayerGraph`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas_sdk.core.errors import ExportError, ModelError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.networks._ops import Step, build_step


@dataclass(frozen=True, slots=True)
class _Call:
    """One layer at work: which values it reads, and which nobody needs afterwards."""

    step: Step
    inputs: tuple[int, ...]
    last_read: tuple[int, ...]


class GraphModule(nn.Module):
    """A layer graph that computes. Its state dict has exactly the keys of `parameter_shapes`.

    Parameters get torch's default initialisation; dotted layer names become nested modules.

    Shapes: input (N, *graph.input.shape), output (N, *graph.output.shape).
    """

    def __init__(self, graph: LayerGraph) -> None:
        """Build all layers.

        Raises: ExportError naming the layer that cannot be built.
        """
        super().__init__()
        self.layer_graph = graph
        number = {layer.name: i for i, layer in enumerate(graph)}
        last_reader = {name: i for i, layer in enumerate(graph) for name in layer.inputs}
        last_reader.pop(graph.output.name, None)
        calls = []
        for i, layer in enumerate(graph.layers[1:], start=1):
            step = build_step(layer, [graph.by_name[name].shape for name in layer.inputs])
            if isinstance(step, nn.Module):
                _attach(self, layer, step)
            inputs = tuple(number[name] for name in layer.inputs)
            done = {name for name in layer.inputs if last_reader.get(name) == i}
            calls.append(_Call(step, inputs, tuple(number[name] for name in sorted(done))))
        self._calls = calls

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers in order and drop each value after its last reader."""
        values: list[Tensor | None] = [x]
        for call in self._calls:
            x = call.step(*[values[i] for i in call.inputs])
            values.append(x)
            for i in call.last_read:
                values[i] = None
        return x


def build_module(graph: LayerGraph) -> GraphModule:
    """Return `graph` as a torch module in training mode, on the default device.

    Raises: ExportError naming the layer that cannot be built.
    """
    return GraphModule(graph)


def load_weights(module: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays into a module; keys the module does not have are left aside.

    Args:
        module: from `build_module`.
        weights: ``{layer}.{param}`` -> array.

    Raises: ModelError for a missing or misshapen weight; the module is then unchanged.
    """
    state = module.state_dict()
    loaded = {}
    for name, tensor in state.items():
        array = weights.get(name)
        if array is None:
            raise ModelError(f"no weight for {name!r}", code="bad_weights")
        if array.shape != tuple(tensor.shape):
            raise ModelError(
                f"weight {name!r} has shape {array.shape}, the network needs {tuple(tensor.shape)}",
                code="bad_weights",
            )
        loaded[name] = torch.from_numpy(np.array(array))  # a copy: ours may be read-only
    module.load_state_dict(loaded)


def _attach(root: nn.Module, layer: Layer, module: nn.Module) -> None:
    """Register `module` under the layer's dotted name."""
    *folders, leaf = layer.name.split(".")
    parent = root
    for folder in folders:
        child = dict(parent.named_children()).get(folder)
        if child is None:
            child = nn.Module()
            _add_child(parent, folder, child, layer)
        parent = child
    _add_child(parent, leaf, module, layer)


def _add_child(parent: nn.Module, name: str, child: nn.Module, layer: Layer) -> None:
    try:
        parent.add_module(name, child)
    except KeyError as exc:
        raise ExportError(
            f"layer {layer.name!r}: torch keeps the name {name!r} for itself"
        ) from exc
