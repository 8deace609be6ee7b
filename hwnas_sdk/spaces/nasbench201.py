"""NAS-Bench-201 / NATS-Bench topology space: 15,625 cells of six edges with five operators.

Sources: Dong & Yang, NAS-Bench-201 (ICLR 2020), section 2; NATS-Bench (TPAMI 2021) for the index.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Hashable
from functools import cache
from typing import Final

import numpy as np

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.spaces import _nasbench201_graph as graphs
from hwnas_sdk.spaces._nasbench201_family import canonical_label, is_dead_cell
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

OPERATORS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

_NODE = re.compile(r"\|(.*)\|")


class NasBench201(SearchSpace):
    """The cell space; decision e is the operator on `EDGES[e]`, as an index into `OPERATORS`."""

    name = "nasbench201"
    choices = (len(OPERATORS),) * len(EDGES)
    datasets = tuple(graphs.DATASETS)

    def encode(self, architecture: Architecture) -> str:
        """Official string, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        self.validate(architecture)
        ops = iter(architecture.genotype)
        nodes = ["|".join(f"{OPERATORS[next(ops)]}~{i}" for i in range(n_in)) for n_in in (1, 2, 3)]
        return "+".join(f"|{node}|" for node in nodes)

    def decode(self, text: str) -> Architecture:
        """Architecture of an official string, or of ``#INDEX`` (official index).

        Raises: SpaceError that shows the edge that is wrong.
        """
        text = text.strip()
        if re.fullmatch(r"#\d+", text):
            return self.from_index(int(text[1:]))
        nodes = text.split("+")
        if len(nodes) != 3:
            raise _bad(text, f"expected 3 nodes joined by '+', found {len(nodes)}")
        genes = []
        for target, node in enumerate(nodes, start=1):
            match = _NODE.fullmatch(node)
            if match is None:
                raise _bad(text, f"node {target} {node!r} must start and end with '|'")
            edges = match.group(1).split("|")
            if len(edges) != target:
                raise _bad(text, f"node {target} has {target} incoming edges, found {len(edges)}")
            for source, edge in enumerate(edges):
                genes.append(_operator(text, edge, source, target))
        return self.architecture(genes)

    def index(self, architecture: Architecture) -> int:
        """Official index, 0..15624."""
        self.validate(architecture)
        return _index_of()[architecture.genotype]

    def from_index(self, index: int) -> Architecture:
        """Architecture of an official index.

        Raises: SpaceError outside 0..15624.
        """
        order = _official_order()
        if not 0 <= index < len(order):
            raise SpaceError(f"nasbench201 has indices 0..{len(order) - 1}, got {index}")
        return Architecture(self.name, order[index])

    def all_genotypes(self) -> Genotypes:
        """All cells in official order, shape (15625, 6)."""
        return np.array(_official_order(), dtype=np.int64)

    def live_mask(self) -> np.ndarray:
        """Which of `all_genotypes` are not dead, shape (15625,), bool."""
        return np.array([not is_dead_cell(cell) for cell in _official_order()])

    def swapped(self, genotypes: Genotypes) -> Genotypes:
        """Cells with nodes 1 and 2 exchanged, (n, 6) -> (n, 6).

        Where edge 1->2 is none they execute the same operators in another order.
        """
        return genotypes[:, [1, 0, 2, 3, 5, 4]]

    def layers(
        self, architecture: Architecture, *, dataset: str | None = None, folded: bool = False
    ) -> LayerGraph:
        """Layer graph; unfolded executes every operator but ``none``, which is x * 0."""
        self.validate(architecture)
        chosen = self.datasets[0] if dataset is None else dataset
        if chosen not in graphs.DATASETS:
            raise SpaceError(
                f"unknown data set {chosen!r} for nasbench201", hint=f"one of {self.datasets}"
            )
        if folded and self.is_dead(architecture):
            raise SpaceError(
                f"{self.encode(architecture)} is a dead cell: its output ignores its input",
                code="dead_cell",
                hint="deploy another network, or export it unfolded to measure it",
            )
        build = graphs.folded_graph if folded else graphs.unfolded_graph
        return build(architecture.id, architecture.genotype, chosen)

    def family(self, architecture: Architecture) -> Hashable:
        """Canonical label of the function the cell computes (5,044 of them)."""
        self.validate(architecture)
        return canonical_label(architecture.genotype)

    def is_dead(self, architecture: Architecture) -> bool:
        """Whether no path leads from input to output (341 cells)."""
        self.validate(architecture)
        return is_dead_cell(architecture.genotype)


def _operator(text: str, edge: str, source: int, target: int) -> int:
    operator, tilde, number = edge.partition("~")
    where = f"edge {source}->{target} {edge!r}"
    if not tilde or number != str(source):
        raise _bad(text, f"{where} must read 'OPERATOR~{source}'")
    if operator not in OPERATORS:
        raise _bad(text, f"{where}: unknown operator {operator!r}; one of {', '.join(OPERATORS)}")
    return OPERATORS.index(operator)


def _bad(text: str, reason: str) -> SpaceError:
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return SpaceError(
        f"not a nasbench201 cell: {reason} in {shown!r}",
        hint="example: |nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    )


@cache
def _official_order() -> tuple[tuple[int, ...], ...]:
    """Genotypes in official order.

    The benchmark enumerates the cells node by node (the last input of a node varies fastest) and
    then shuffles the list once with Python's generator seeded with 88; Python has kept that
    shuffle stable since 3.2. tests/spaces checks all rows against the public table.
    """
    cells = list(itertools.product(range(len(OPERATORS)), repeat=len(EDGES)))
    random.Random(88).shuffle(cells)
    return tuple(cells)


@cache
def _index_of() -> dict[tuple[int, ...], int]:
    return {cell: i for i, cell in enumerate(_official_order())}
