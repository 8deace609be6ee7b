"""Made-up objectives and a made-up space for tests of searchers."""

from __future__ import annotations

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.spaces import SearchSpace


def conv_cost(genotypes):
    """Error falls with convolutions, latency rises with them; position matters a little."""
    weight = np.array([0.0, 0.2, 1.0, 3.0, 0.6])[genotypes]
    skill = np.array([0.0, 0.7, 1.4, 2.0, 0.3])[genotypes]
    place = np.array([1.0, 0.9, 1.1, 0.8, 1.2, 1.0])
    latency = 1.0 + (weight * place).sum(axis=1)
    error = 60.0 * np.exp(-0.4 * (skill * place[::-1]).sum(axis=1)) + 5.0
    return np.column_stack([error, latency])


def normalised_hv(space, values):
    everything = conv_cost(space.all_genotypes()[space.live_mask()])
    low, high = everything.min(axis=0), everything.max(axis=0)

    def volume(points):
        return pareto.hypervolume((points - low) / (high - low), np.ones(2))

    return volume(values) / volume(everything)


class TinySpace(SearchSpace):
    """27 members, 9 of them dead; a decision with one choice; two members share a function."""

    name = "tiny"
    choices = (3, 3, 1, 3)
    datasets = ("none",)

    def encode(self, architecture):
        return "-".join(map(str, architecture.genotype))

    def decode(self, text):
        return self.architecture([int(gene) for gene in text.split("-")])

    def layers(self, architecture, *, dataset=None, folded=False):
        raise NotImplementedError

    def family(self, architecture):
        return min(architecture.genotype[0], 1), *architecture.genotype[1:]

    def is_dead(self, architecture):
        return architecture.genotype[0] == 0
