"""A space of 256 chains of convolutions: small enough to rank whole in a test."""

from __future__ import annotations

import ast

from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.spaces.base import SearchSpace


class Listed(SearchSpace):
    """Strings are lists of the decisions, and every cell is a function of its own."""

    datasets = ("images",)

    def encode(self, architecture):
        return str(list(architecture.genotype))

    def decode(self, text):
        return self.architecture(ast.literal_eval(text))

    def family(self, architecture):
        return architecture.genotype


class Chains(Listed):
    """Four convolutions whose widths are chosen; width 0 everywhere is dead."""

    name = "chains"
    choices = (4, 4, 4, 4)

    def is_dead(self, architecture: Architecture) -> bool:
        self.validate(architecture)
        return not any(architecture.genotype)

    def layers(self, architecture, *, dataset=None, folded=False):
        layers, channels, below = [Layer("input", "input", (), (3, 8, 8))], 3, "input"
        for i, gene in enumerate(architecture.genotype):
            width = 4 * (gene + 1)
            layers.append(
                Layer(f"c{i}", "conv", (below,), (width, 8, 8), {"kernel": 1},
                      {"weight": (width, channels, 1, 1)})
            )  # fmt: skip
            channels, below = width, f"c{i}"
        layers.append(Layer("pool", "global_avg_pool", (below,), (channels,)))
        return LayerGraph(architecture.id, tuple(layers), folded)
