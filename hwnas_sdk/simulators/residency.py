"""Feature maps that stay on the chip between layers.

Published as fused layers (Alwani, Chen, Ferdman, Milder: Fused-Layer CNN Accelerators, MICRO 2016),
as layer-conscious memory management (Wei, Liang, Cong, DAC 2019) and as the engine's inter-layer
data locality: a map that fits a buffer needs no way to the outermost memory and back.

The rule here is the most favourable one: what other maps are alive at the same time (branches) is
not subtracted from the buffers, and a map that was written to one buffer is read from another for
nothing (the two change roles). Its result is the most that residency can give.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwnas_sdk.core.layers import Layer
from hwnas_sdk.simulators.description import AcceleratorDescription, Operand
from hwnas_sdk.simulators.workload import ArrayWork, ElementWork


def stays_on_chip(
    work: ArrayWork | ElementWork, inputs: Sequence[Layer], description: AcceleratorDescription
) -> bool:
    """Whether the maps of `work` are in the shared buffers before and after it.

    Both of them are or none is. The network's own input comes from outside.
    """
    if description.feature_maps != "on_chip" or any(source.op == "input" for source in inputs):
        return False
    words: dict[Operand, int] = {"input": work.words_in, "output": work.words_out}
    needed: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for operand, n_words in words.items():
        buffer = description.shared_buffer(operand)
        if buffer is None:
            return False
        needed[buffer.name] = needed.get(buffer.name, 0) + n_words
        sizes[buffer.name] = buffer.size_bytes
    word_bytes = description.precision_bits.activation / 8
    return all(needed[name] * word_bytes <= size for name, size in sizes.items())
