"""HW-PR-NAS: evolution guided by one score, the expected Pareto rank.

Of what the evolution scored the candidates are chosen like those of every other method, by the
expected hypervolume of the set: a score says which networks are good, not which ones complete each
other. Choosing among a shortlist of the best scores only was worse on five training devices, each
left out; so were tournaments of ten.

The score is learned from the known accuracies and the latencies that the ten measured ones predict
for the same networks: the strict setting, in which nobody measured five hundred of them.
"""

from __future__ import annotations

import numpy as np

from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.rank import RankPredictor
from hwnas_sdk.search.rank import RankSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import Genotypes
from hwnas_sdk.workflows.entrants.entry import Entry
from hwnas_sdk.workflows.entrants.evolution import GENERATIONS, POPULATION
from hwnas_sdk.workflows.search_protocol import Floats, Rows


def rank(entry: Entry) -> list[Rows]:
    """Learn the score, evolve, choose among the best; with rounds, again with the truth."""
    plan, contest = entry.plan, entry.contest
    error_rows, latency_rows = entry.accuracy_rows(), entry.reference_rows()
    proposals: list[Rows] = []
    for number in range(plan.rounds):
        with entry.timed("fit"):
            latency = entry.fit_latency(latency_rows)
            costs = latency.predict(contest.features[error_rows]).mean
            measured = np.isin(error_rows, latency_rows)
            costs[measured] = entry.oracle.latencies(error_rows[measured])
            predictor = RankPredictor.fit(
                contest.space,
                contest.genotypes[error_rows],
                entry.oracle.errors(error_rows),
                {entry.device: np.maximum(costs, 1e-6)},
                seed=entry.child_seed("rank", number),
            )

        def score(
            genotypes: Genotypes, predictor: RankPredictor = predictor, latency: object = latency
        ) -> Floats:
            cheap = latency.predict(structural_features(genotypes)).mean  # type: ignore[attr-defined]
            return np.column_stack([predictor.expected_ranks(genotypes, entry.device), cheap])

        with entry.timed("search"):
            searcher = RankSearcher(
                contest.space, population=POPULATION, seed=entry.child_seed(number)
            )
            search(
                contest.space,
                score,
                searcher,
                GENERATIONS,
                n_per_generation=POPULATION,
                violation=entry.not_allowed(entry.allowed(proposals)),
            )
            seen = searcher.evaluated.feasible
            predict = entry.both(entry.fit_accuracy(error_rows), latency)
            rows = entry.choose(
                contest.rows(seen.genotypes),
                *predict(seen.genotypes),
                known=entry.attained(proposals),
                seed=entry.child_seed(number),
            )
        proposals.append(rows)
        if number + 1 < plan.rounds:
            error_rows = np.union1d(error_rows, rows)
            latency_rows = np.union1d(latency_rows, rows)
    return proposals
