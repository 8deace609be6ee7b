"""Searches from the literature, on the same accuracies and latencies as all the others.

What a method does not say is the same for all: the accuracy and latency models of `nsga2`, and, for
those that end with a population instead of a choice, the subset of their predicted front with the
largest hypervolume. All propose once. BRP-NAS and GATES bring their own predictors, which know
nothing of other devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.search.base import Searcher
from hwnas_sdk.search.constrained import BoundedSearcher
from hwnas_sdk.search.metad2a import MetaD2aSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import Genotypes
from hwnas_sdk.workflows.baseline_scores import FIT_SCORES
from hwnas_sdk.workflows.entrants.entry import Entry
from hwnas_sdk.workflows.entrants.evolution import GENERATIONS, POPULATION
from hwnas_sdk.workflows.search_protocol import Floats, Rows
from hwnas_sdk.workflows.searchers import SEARCHERS, Task

Means = Callable[[Genotypes], Floats]
OBJECTIVES: Final = ("error", "latency")


def lemonade(entry: Entry) -> list[Rows]:
    """LEMONADE; latency is the cheap objective."""
    return _evolved(entry, "lemonade", _means(entry))


def local_search(entry: Entry) -> list[Rows]:
    """Neighbours of the non-dominated set."""
    return _evolved(entry, "local-search", _means(entry))


def mo_rea(entry: Entry) -> list[Rows]:
    """Multi-objective regularised evolution."""
    return _evolved(entry, "mo-rea", _means(entry))


def brp_nas(entry: Entry) -> list[Rows]:
    """NSGA-II on BRP-NAS' binary relation and latency network."""
    return _evolved(entry, "nsga2", _own_scores(entry, "brp-nas"))


def gates(entry: Entry) -> list[Rows]:
    """NSGA-II on one GATES network per objective."""
    return _evolved(entry, "nsga2", _own_scores(entry, "gates"))


def ofa(entry: Entry) -> list[Rows]:
    """Evolution under one latency bound per candidate; the best of each bound."""
    means = _means(entry)
    searcher = _searcher(entry, "ofa", means)
    assert isinstance(searcher, BoundedSearcher)
    return _bounded(entry, means, searcher, GENERATIONS)


def metad2a(entry: Entry) -> list[Rows]:
    """MetaD2A + HELP: of 500 networks the most accurate one under each latency bound."""
    means = _means(entry)
    searcher = MetaD2aSearcher(
        entry.contest.space,
        score=lambda g: means(g)[:, 0],
        cost=lambda g: means(g)[:, 1],
        seed=entry.child_seed(0),
    )
    return _bounded(entry, means, searcher, 1)


def _searcher(entry: Entry, name: str, means: Means) -> Searcher:
    """The searcher `hwnas search --method` has under this name."""
    columns = {objective: i for i, objective in enumerate(OBJECTIVES)}
    task = Task(
        space=entry.contest.space,
        objectives=OBJECTIVES,
        population=POPULATION,
        seed=entry.child_seed(0),
        predict=lambda genotypes, names: means(genotypes)[:, [columns[name] for name in names]],
    )
    return SEARCHERS[name](task)


def _own_scores(entry: Entry, name: str) -> Means:
    """What a published method minimises, learned from what everybody knows of this device."""
    entry.refuse_rounds()
    genotypes, known = entry.contest.genotypes, entry.accuracy_rows()
    measured = entry.reference_rows()
    with entry.timed("fit"):
        return FIT_SCORES[name](
            genotypes[known],
            entry.oracle.errors(known),
            genotypes[measured],
            entry.oracle.latencies(measured),
            seed=entry.child_seed(name),
        )


def _means(entry: Entry) -> Means:
    """Predicted error and latency from what everybody knows."""
    entry.refuse_rounds()
    with entry.timed("fit"):
        accuracy = entry.fit_accuracy(entry.accuracy_rows())
        latency = entry.fit_latency(entry.reference_rows())

    def means(genotypes: Genotypes) -> Floats:
        return np.column_stack(
            [
                accuracy.predict(genotypes).mean,
                latency.predict(structural_features(genotypes)).mean,
            ]
        )

    return means


def _run(entry: Entry, means: Means, searcher: Searcher, generations: int) -> None:
    search(
        entry.contest.space,
        means,
        searcher,
        generations,
        n_per_generation=POPULATION,
        violation=entry.not_allowed(entry.eligible),
    )


def _evolved(entry: Entry, name: str, means: Means) -> list[Rows]:
    with entry.timed("search"):
        searcher = _searcher(entry, name, means)
        _run(entry, means, searcher, GENERATIONS)
        front = searcher.evaluated.feasible
        rows = entry.contest.rows(front.genotypes)
        return [entry.choose(rows, front.values, None, known=None, seed=entry.child_seed(0))]


def _bounded(entry: Entry, means: Means, searcher: BoundedSearcher, generations: int) -> list[Rows]:
    with entry.timed("search"):
        _run(entry, means, searcher, generations)
        best = searcher.best_per_bound().genotypes
        rows = np.unique(entry.contest.rows(best))
    return [rows[: entry.plan.candidates]]
