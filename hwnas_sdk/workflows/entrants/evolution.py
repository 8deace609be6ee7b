"""Random candidates, and evolution on two independent predictors."""

from __future__ import annotations

from typing import Final

import numpy as np

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.nsga2 import Nsga2Searcher
from hwnas_sdk.search.run import search
from hwnas_sdk.workflows.entrants.entry import TASK, Entry, Predict
from hwnas_sdk.workflows.search_protocol import Rows

POPULATION: Final = 100
GENERATIONS: Final = 50


def random(entry: Entry) -> list[Rows]:
    """Candidates at random; uses nothing."""
    plan = entry.plan
    with entry.timed("search"):
        rng = child_rng(entry.seed, TASK, "random", entry.device)
        rows = np.flatnonzero(entry.eligible)
        drawn = rng.choice(rows, plan.candidates * plan.rounds, replace=False)
    return [np.sort(part) for part in np.split(drawn, plan.rounds)]


def nsga2(entry: Entry) -> list[Rows]:
    """Fit both models, evolve, choose; with rounds, again with what was revealed."""
    plan = entry.plan
    error_rows, latency_rows = entry.accuracy_rows(), entry.reference_rows()
    proposals: list[Rows] = []
    for number in range(plan.rounds):
        with entry.timed("fit"):
            predict = entry.both(entry.fit_accuracy(error_rows), entry.fit_latency(latency_rows))
        with entry.timed("search"):
            rows = evolve(entry, predict, proposals, seed=entry.child_seed(number))
        proposals.append(rows)
        if number + 1 < plan.rounds:
            error_rows = np.concatenate([error_rows, rows[~np.isin(rows, error_rows)]])
            latency_rows = np.concatenate([latency_rows, rows[~np.isin(rows, latency_rows)]])
    return proposals


def evolve(entry: Entry, predict: Predict, proposals: list[Rows], *, seed: int) -> Rows:
    """Candidates of one round: NSGA-II on the predicted means, then expected hypervolume."""
    space = entry.contest.space
    found = search(
        space,
        lambda genotypes: predict(genotypes)[0],
        Nsga2Searcher(space, population=POPULATION, seed=seed),
        GENERATIONS,
        n_per_generation=POPULATION,
        violation=entry.not_allowed(entry.allowed(proposals)),
    ).evaluated
    feasible = found.genotypes[found.violation == 0.0]
    rows = entry.contest.rows(feasible)
    return entry.choose(rows, *predict(feasible), known=entry.attained(proposals), seed=seed)
