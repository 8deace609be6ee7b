"""Which loops run in space: the legal spatial mappings of a layer, those with few passes first.

Pure arithmetic; the engine then evaluates the first few. Nothing here knows of any table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hwnas_sdk.simulators.description import Array, MappingRules
from hwnas_sdk.simulators.workload import ArrayWork

Factors = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Unrolling:
    """Loop -> factor on each axis (factors of 1 left out), and the passes that remain."""

    columns: Factors
    rows: Factors
    passes: int

    def total(self, loop: str) -> int:
        """Factor of `loop` over both axes."""
        return self.columns.get(loop, 1) * self.rows.get(loop, 1)

    @property
    def elements(self) -> int:
        """Processing elements in use."""
        return math.prod(self.columns.values()) * math.prod(self.rows.values())

    def text(self) -> str:
        """For people, such as ``columns OY8 | rows FY3 K4``."""
        sides = [
            f"{name} " + " ".join(f"{loop}{factor}" for loop, factor in axis.items())
            for name, axis in (("columns", self.columns), ("rows", self.rows))
            if axis
        ]
        return " | ".join(sides) or "nothing unrolled"


def unrollings(work: ArrayWork, array: Array, rules: MappingRules) -> list[Unrolling]:
    """At most `rules.candidates` legal spatial mappings of `work`, best first.

    Best means fewest passes over the array; of equals, the one that unrolls the loops an axis
    names first by more. There is always one: nothing unrolled.
    """
    on_columns = list(_axis(work, array.columns, rules.columns, rules))
    on_rows = list(_axis(work, array.rows, rules.rows, rules))
    found = []
    for columns, rows in itertools.product(on_columns, on_rows):
        shared = columns.keys() & rows.keys()
        if not all(_fits(work.bound(x), columns[x] * rows[x], rules.factors) for x in shared):
            continue
        passes = 1
        for loop in ("K", "C", "G", "OX", "OY", "FX", "FY"):
            passes *= math.ceil(work.bound(loop) / (columns.get(loop, 1) * rows.get(loop, 1)))
        found.append(Unrolling(columns, rows, passes))
    found.sort(key=lambda one: (one.passes, *_preference(one, rules)))
    return found[: rules.candidates]


def _preference(one: Unrolling, rules: MappingRules) -> tuple[int, ...]:
    columns = tuple(-one.columns.get(loop, 1) for loop in rules.columns)
    return (*columns, *(-one.rows.get(loop, 1) for loop in rules.rows))


def _axis(
    work: ArrayWork, size: int, loops: Sequence[str], rules: MappingRules
) -> Iterator[dict[str, int]]:
    """Every way to unroll `loops` over an axis of `size` elements."""
    fixed: dict[str, int] = {}
    room = size
    for loop in loops:
        if loop in rules.unroll_fully:
            fixed[loop] = max(f for f in _choices(work.bound(loop), room, rules.factors))
            room //= fixed[loop]
    free = [loop for loop in loops if loop not in fixed]
    options = [_choices(work.bound(loop), room, rules.factors) for loop in free]
    for factors in itertools.product(*options):
        if math.prod(factors) <= room:
            chosen = {**fixed, **dict(zip(free, factors, strict=True))}
            yield {loop: chosen[loop] for loop in loops if chosen[loop] > 1}


def _choices(bound: int, room: int, factors: str) -> list[int]:
    """Factors worth trying: divisors, or the smallest of those that need equally many passes."""
    if factors == "divisors":
        return [f for f in range(1, min(bound, room) + 1) if bound % f == 0]
    best: dict[int, int] = {}
    for factor in range(1, min(bound, room) + 1):
        best.setdefault(math.ceil(bound / factor), factor)
    return sorted(best.values())


def _fits(bound: int, factor: int, factors: str) -> bool:
    return factor <= bound and (factors == "any" or bound % factor == 0)
