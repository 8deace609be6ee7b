"""Cost of the layers the engine leaves out: pooling, additions, activations that are not fused.

An explicit model, not a measurement: every word comes from the outermost memory once and goes back
there once, through the buffers the array shares; the operations run `ops_per_cycle` at a time; both
overlap, so the slower one counts. The energy is that of these accesses and operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas_sdk.simulators.description import AcceleratorDescription, Memory
from hwnas_sdk.simulators.workload import ElementWork


@dataclass(frozen=True, slots=True)
class ElementCost:
    """Cycles, energies (all, and that of the outermost memory), bytes moved to and from there."""

    cycles: float
    energy_pj: float
    outer_energy_pj: float
    outer_bytes: float


def elementwise_cost(work: ElementWork, description: AcceleratorDescription) -> ElementCost:
    """Cost of `work` on `description` by the model above."""
    outer = description.outermost
    word_bits = description.precision_bits.activation
    width_in = outer.width_bits("input", description.clock_mhz)
    width_out = outer.width_bits("output", description.clock_mhz)
    in_cycles = work.words_in * word_bits / width_in
    out_cycles = work.words_out * word_bits / width_out
    moving = in_cycles + out_cycles if outer.ports == "shared" else max(in_cycles, out_cycles)
    operating = work.n_ops / description.elementwise.ops_per_cycle
    outer_pj = work.words_in * outer.read_pj + work.words_out * outer.write_pj
    buffers_pj = sum(
        work.words_in * _through(memory, "input") + work.words_out * _through(memory, "output")
        for memory in description.memories[:-1]
        if set(memory.serves) == {"columns", "rows"}
    )
    return ElementCost(
        cycles=max(moving, operating),
        energy_pj=outer_pj + buffers_pj + work.n_ops * description.array.mac_pj,
        outer_energy_pj=outer_pj,
        outer_bytes=(work.words_in + work.words_out) * word_bits / 8,
    )


def _through(memory: Memory, operand: str) -> float:
    """Energy of a word written to and read from `memory`, if it holds that operand."""
    return memory.read_pj + memory.write_pj if operand in memory.holds else 0.0
