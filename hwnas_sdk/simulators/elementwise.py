"""Cost of the layers the engine leaves out: pooling, additions, activations that are not fused.

An explicit model, not a measurement: every word comes from the outermost memory once and goes back
there once, through the buffers the array shares; the operations run `ops_per_cycle` at a time; both
overlap, so the slower one counts. The energy is that of these accesses and operations. A layer
whose maps stay on the chip reads and writes the buffers instead.
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
    source = (description.shared_buffer("input") if work.on_chip else None) or outer
    sink = (description.shared_buffer("output") if work.on_chip else None) or outer
    word_bits = description.precision_bits.activation
    in_cycles = work.words_in * word_bits / source.width_bits("input", description.clock_mhz)
    out_cycles = work.words_out * word_bits / sink.width_bits("output", description.clock_mhz)
    one_port = source is sink and source.ports == "shared"
    moving = in_cycles + out_cycles if one_port else max(in_cycles, out_cycles)
    operating = work.n_ops / description.elementwise.ops_per_cycle
    ends_pj = work.words_in * source.read_pj + work.words_out * sink.write_pj
    buffers_pj = sum(
        work.words_in * _through(memory, "input") * (memory is not source)
        + work.words_out * _through(memory, "output") * (memory is not sink)
        for memory in description.memories[:-1]
        if set(memory.serves) == {"columns", "rows"}
    )
    words_outside = work.words_in * (source is outer) + work.words_out * (sink is outer)
    return ElementCost(
        cycles=max(moving, operating),
        energy_pj=ends_pj + buffers_pj + work.n_ops * description.array.mac_pj,
        outer_energy_pj=work.words_in * outer.read_pj * (source is outer)
        + work.words_out * outer.write_pj * (sink is outer),
        outer_bytes=words_outside * word_bits / 8,
    )


def _through(memory: Memory, operand: str) -> float:
    """Energy of a word written to and read from `memory`, if it holds that operand."""
    return memory.read_pj + memory.write_pj if operand in memory.holds else 0.0
