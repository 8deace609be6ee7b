"""The seam every black-box searcher fills in: ask, tell, and nothing else.

A searcher's state follows from its seed and what it was told. That is how a search resumes: a new
searcher with the same seed replays the stored tells, and no optimiser is ever pickled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace

Values = NDArray[np.float64]
"""Objectives, all minimised, (n, m); or constraint violations, (n,)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Architectures with their scores.

    Shapes: genotypes (n, d), values (n, m), violation (n,). A violation of 0 means feasible; above
    0 it is the sum of relative excesses over the limits, see `relative_excess`.
    """

    genotypes: Genotypes
    values: Values
    violation: Values

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.genotypes)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Evaluated:
        """Return some of the rows."""
        return Evaluated(self.genotypes[rows], self.values[rows], self.violation[rows])

    @property
    def feasible(self) -> Evaluated:
        """Rows that violate nothing."""
        return self.take(self.violation <= 0.0)

    @property
    def front(self) -> Evaluated:
        """Feasible rows that no feasible row dominates; duplicates are kept."""
        feasible = self.feasible
        return feasible.take(pareto.non_dominated_mask(feasible.values))


def relative_excess(values: Values, limits: Values) -> Values:
    """Constraint violation: the sum over columns of max(0, value / limit - 1).

    Shapes: values (n, c), limits (c,), all positive; infinity for no limit -> (n,).
    Raises: ValueError for a limit that is not positive.
    """
    bounds = np.asarray(limits, dtype=np.float64)
    if not (bounds > 0.0).all():
        raise ValueError(f"limits must be positive, got {bounds.tolist()}")
    result: Values = np.maximum(np.asarray(values) / bounds - 1.0, 0.0).sum(axis=1)
    return result


class Searcher(ABC):
    """Proposes architectures of `space`, never a dead one and never one twice.

    A new searcher defines `_ask` and `_tell`; `hwnas_sdk.testing.searcher.SearcherConformance`
    checks it.

    Args:
        space: where to search.
        seed: with the tells, all that determines the asks.
        n_objectives: columns of the values it will be told.
    """

    name: str

    def __init__(self, space: SearchSpace, *, seed: int, n_objectives: int = 2) -> None:
        """Start with nothing told."""
        if n_objectives < 1:
            raise ValueError(f"n_objectives must be at least 1, got {n_objectives}")
        self.space = space
        self.seed = seed
        self.n_objectives = n_objectives
        self._traits = traits_of(space)
        self._asked: set[tuple[int, ...]] = set()
        self._pending: Genotypes | None = None
        self._tells: list[Evaluated] = []

    @abstractmethod
    def _ask(self, n: int) -> Genotypes:
        """Up to `n` architectures for which `_may_ask` holds, shape (<= n, d)."""

    @abstractmethod
    def _tell(self, told: Evaluated) -> None:
        """Learn from the scores of the last ask, in its order."""

    def ask(self, n: int) -> Genotypes:
        """Architectures to score next.

        Shapes: (k, d) with k <= n; k < n only when the space has no more live architectures.
        Raises: ValueError while the last ask has not been told.
        """
        if n < 1:
            raise ValueError(f"ask for at least one architecture, not {n}")
        if self._pending is not None:
            raise ValueError("tell the scores of the last ask before asking again")
        genotypes = self._ask(n)
        self._asked.update(map(tuple, genotypes.tolist()))
        self._pending = genotypes if len(genotypes) else None
        return genotypes.copy()

    def tell(
        self, genotypes: Genotypes, values: Values, *, violation: Values | None = None
    ) -> None:
        """Report the scores of the last ask.

        Shapes: genotypes (n, d) exactly as asked, values (n, m), violation (n,) or None for all
        feasible.
        Raises: ValueError on NaN, wrong shapes, or architectures that were not the last ask.
        """
        if self._pending is None or not np.array_equal(self._pending, genotypes):
            raise ValueError("these architectures are not the ones asked for last")
        n = len(self._pending)
        scores = np.array(values, dtype=np.float64)
        excess = np.zeros(n) if violation is None else np.array(violation, dtype=np.float64)
        if scores.shape != (n, self.n_objectives) or excess.shape != (n,):
            raise ValueError(
                f"expected values {(n, self.n_objectives)} and violation {(n,)}, "
                f"got {scores.shape} and {excess.shape}"
            )
        if not np.isfinite(scores).all() or not (excess >= 0.0).all():
            raise ValueError("scores must be finite and violations must not be negative")
        told = Evaluated(self._pending, scores, excess)
        self._pending = None
        self._tells.append(told)
        self._tell(told)

    def replay(self, tells: Iterable[Evaluated]) -> None:
        """Bring a fresh searcher to where another with the same seed was after `tells`.

        Raises: DataError (``replay_mismatch``) when it would have asked something else: another
            seed, space or version wrote the tells.
        """
        for step, told in enumerate(tells):
            asked = self.ask(len(told))
            if not np.array_equal(asked, told.genotypes):
                raise DataError(
                    f"{self.name}: step {step} of the stored search does not replay",
                    code="replay_mismatch",
                    hint="it was made with another seed, space or version; start a new search",
                )
            self.tell(asked, told.values, violation=told.violation)

    @property
    def tells(self) -> tuple[Evaluated, ...]:
        """Everything told so far, step by step; what `replay` takes."""
        return tuple(self._tells)

    @property
    def evaluated(self) -> Evaluated:
        """Everything told so far in one table."""
        d, m = self.space.n_decisions, self.n_objectives
        none = Evaluated(np.empty((0, d), dtype=np.int64), np.empty((0, m)), np.empty(0))
        steps = [none, *self._tells]
        return Evaluated(
            np.concatenate([step.genotypes for step in steps]),
            np.concatenate([step.values for step in steps]),
            np.concatenate([step.violation for step in steps]),
        )

    def front(self) -> Evaluated:
        """Best trade-offs among everything told."""
        return self.evaluated.front

    def _may_ask(self, genotypes: Genotypes) -> NDArray[np.bool_]:
        """First occurrences that are live and were never asked, (n, d) -> (n,)."""
        seen: set[tuple[int, ...]] = set()
        fresh = np.zeros(len(genotypes), dtype=np.bool_)
        for row, genes in enumerate(map(tuple, genotypes.tolist())):
            fresh[row] = genes not in self._asked and genes not in seen
            seen.add(genes)
        fresh[fresh] = ~self._traits.dead(genotypes[fresh])
        return fresh

    def _fresh_random(self, n: int, rng: np.random.Generator) -> Genotypes:
        """Up to `n` random architectures that may be asked."""
        found: list[Genotypes] = []
        missing = n
        for attempt in range(_RANDOM_ATTEMPTS):
            # Most draws of a well-explored space are known: draw more each time.
            draws = self.space.uniform(missing * 2 ** min(attempt, 6), rng)
            taken = {tuple(row) for rows in found for row in rows.tolist()}
            new = draws[self._may_ask(draws)]
            new = new[[tuple(row) not in taken for row in new.tolist()]][:missing]
            found.append(new)
            missing -= len(new)
            if missing == 0:
                break
        return np.concatenate(found)


_RANDOM_ATTEMPTS = 100
