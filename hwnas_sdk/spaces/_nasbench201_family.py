"""Which cells compute the same function.

A node's value is a multiset of atoms (k, b): b is the cell input (-1) or a convolution *instance*
(one per edge), k the number of average pools applied to it. A skip copies the multiset, a pool
increments every k (pooling is linear), `none` and empty inputs add nothing, and a convolution with
a non-empty input makes a new instance that holds its input multiset. Instances that node 3 does
not reach are dropped; the label is the smallest over all relabelings of the instances.
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache
from typing import Final

NONE, SKIP, CONV1, CONV3, POOL = range(5)
CELL_INPUT: Final = -1

Atom = tuple[int, int]  # (pools applied, base: CELL_INPUT or the edge of a convolution)
Atoms = Counter[Atom]
_EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
Label = tuple[
    tuple[tuple[int, int, int], ...], tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]
]


@cache
def cell_atoms(cell: tuple[int, ...]) -> tuple[Atoms, dict[int, Atoms]]:
    """Return (output multiset, live convolution edge -> its input multiset)."""
    nodes: list[Atoms] = [Counter({(0, CELL_INPUT): 1}), Counter(), Counter(), Counter()]
    convolutions: dict[int, Atoms] = {}
    for target in (1, 2, 3):
        for edge, (source, to) in enumerate(_EDGES):
            if to != target or not nodes[source]:
                continue
            op = cell[edge]
            if op == SKIP:
                nodes[to].update(nodes[source])
            elif op == POOL:
                nodes[to].update(
                    Counter({(k + 1, base): n for (k, base), n in nodes[source].items()})
                )
            elif op in (CONV1, CONV3):
                convolutions[edge] = nodes[source]
                nodes[to][(0, edge)] += 1
    live: set[int] = set()
    todo = [base for _, base in nodes[3] if base != CELL_INPUT]
    while todo:
        edge = todo.pop()
        if edge not in live:
            live.add(edge)
            todo.extend(base for _, base in convolutions[edge] if base != CELL_INPUT)
    return nodes[3], {edge: convolutions[edge] for edge in sorted(live)}


def is_dead_cell(cell: tuple[int, ...]) -> bool:
    """Whether the cell's output does not depend on its input."""
    return not cell_atoms(tuple(cell))[0]


@cache
def canonical_label(cell: tuple[int, ...]) -> Label:
    """Label that two cells share exactly when they compute the same function."""
    output, convolutions = cell_atoms(tuple(cell))
    edges = list(convolutions)

    def flat(atoms: Atoms, number: dict[int, int]) -> tuple[tuple[int, int, int], ...]:
        return tuple(sorted((k, number.get(base, base), n) for (k, base), n in atoms.items()))

    def labelled(order: tuple[int, ...]) -> Label:
        number = {edge: i for i, edge in enumerate(order)}
        return flat(output, number), tuple(
            (cell[edge], flat(convolutions[edge], number)) for edge in order
        )

    return min(labelled(order) for order in itertools.permutations(edges))
