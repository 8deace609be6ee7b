"""The black-box searchers by name, each given what it needs to know beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.search.base import Searcher
from hwnas_sdk.search.lemonade import LemonadeSearcher
from hwnas_sdk.search.local_search import LocalSearcher
from hwnas_sdk.search.mo_rea import MoReaSearcher
from hwnas_sdk.search.nsga2 import Nsga2Searcher
from hwnas_sdk.search.ofa import OfaSearcher
from hwnas_sdk.search.random import RandomSearcher
from hwnas_sdk.search.rank import RankSearcher
from hwnas_sdk.spaces import Genotypes, SearchSpace

Predict = Callable[[Genotypes, Sequence[str]], NDArray[np.float64]]
"""(genotypes (n, d), k objectives by name) -> their predicted values (n, k)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a searcher is made for.

    Attributes:
        space: where to search.
        objectives: names of the values it will be told, error and latency among them.
        population: for those that keep one.
        seed: with the tells, all that determines the asks.
        predict: objectives of architectures that were not asked for.
    """

    space: SearchSpace
    objectives: tuple[str, ...]
    population: int
    seed: int
    predict: Predict

    @property
    def n_objectives(self) -> int:
        """Number of objectives."""
        return len(self.objectives)


def _nsga2(task: Task) -> Searcher:
    return Nsga2Searcher(
        task.space, population=task.population, seed=task.seed, n_objectives=task.n_objectives
    )


def _rank(task: Task) -> Searcher:
    """Told the score in place of the error, and the other objectives."""
    return RankSearcher(
        task.space, population=task.population, seed=task.seed, n_objectives=task.n_objectives
    )


def _random(task: Task) -> Searcher:
    return RandomSearcher(task.space, seed=task.seed, n_objectives=task.n_objectives)


def _lemonade(task: Task) -> Searcher:
    cheap = [name for name in task.objectives if name != "error"]
    return LemonadeSearcher(
        task.space,
        cheap=lambda genotypes: task.predict(genotypes, cheap),
        seed=task.seed,
        n_objectives=task.n_objectives,
    )


def _local_search(task: Task) -> Searcher:
    return LocalSearcher(task.space, seed=task.seed, n_objectives=task.n_objectives)


def _mo_rea(task: Task) -> Searcher:
    return MoReaSearcher(
        task.space, population=task.population, seed=task.seed, n_objectives=task.n_objectives
    )


def _ofa(task: Task) -> Searcher:
    return OfaSearcher(
        task.space,
        cost=lambda genotypes: task.predict(genotypes, ["latency"])[:, 0],
        target=task.objectives.index("error"),
        population=task.population,
        seed=task.seed,
        n_objectives=task.n_objectives,
    )


SEARCHERS: Final[Mapping[str, Callable[[Task], Searcher]]] = {
    "nsga2": _nsga2,
    "rank": _rank,
    "random": _random,
    "lemonade": _lemonade,
    "local-search": _local_search,
    "mo-rea": _mo_rea,
    "ofa": _ofa,
}
"""Makers of the searchers of `hwnas search --method`."""
