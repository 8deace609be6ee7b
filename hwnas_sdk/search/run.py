"""Drive a searcher with a scorer: the one loop all black-box searches share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.search.base import Evaluated, Searcher, Values
from hwnas_sdk.spaces import Genotypes, SearchSpace

Scorer = Callable[[Genotypes], Values]
"""Genotypes (n, d) -> objectives (n, m), all minimised; or -> violations (n,)."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search saw.

    Attributes:
        evaluated: everything scored, in order.
        duration_s: wall time, scoring included.
        scoring_s: of which inside the scorer.
    """

    evaluated: Evaluated
    duration_s: float
    scoring_s: float

    @property
    def n_evaluations(self) -> int:
        """Number of architectures scored."""
        return len(self.evaluated)

    @property
    def front(self) -> Evaluated:
        """Feasible non-dominated part of what was scored."""
        return self.evaluated.front


def search(
    space: SearchSpace,
    scorer: Scorer,
    searcher: Searcher,
    n_generations: int,
    *,
    n_per_generation: int = 100,
    violation: Scorer | None = None,
    on_event: EventSink = ignore,
) -> SearchResult:
    """Ask, score and tell for `n_generations`, or until the space has nothing new.

    Args:
        space: the searcher's space.
        scorer: objectives of a batch; called once per generation, never twice for one network.
        searcher: fresh, or brought up to date with `Searcher.replay`.
        n_generations: how many batches.
        n_per_generation: size of a batch.
        violation: constraint violation of a batch, 0 = feasible (see `relative_excess`).
        on_event: hears of each generation.

    Raises: ValueError for a searcher of another space; DataError when the scorer returns values
        that are not finite.
    """
    if searcher.space is not space:
        raise ValueError(f"the searcher searches {searcher.space.name!r}, not this {space.name!r}")
    if n_generations < 1:
        raise ValueError(f"a search needs at least one generation, not {n_generations}")
    started = time.perf_counter()
    scoring_s = 0.0
    for generation in range(n_generations):
        genotypes = searcher.ask(n_per_generation)
        if len(genotypes) == 0:
            break
        before = time.perf_counter()
        values = scorer(genotypes)
        excess = None if violation is None else violation(genotypes)
        scoring_s += time.perf_counter() - before
        n_bad = int((~np.isfinite(values)).any(axis=1).sum())
        if n_bad:
            raise DataError(
                f"the scorer has no finite value for {n_bad} of {len(values)} architectures",
                code="bad_scores",
            )
        searcher.tell(genotypes, values, violation=excess)
        on_event(Event(f"search {searcher.name}", generation + 1, n_generations))
    return SearchResult(searcher.evaluated, time.perf_counter() - started, scoring_s)
