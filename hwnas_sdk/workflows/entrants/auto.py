"""The default method: ask for accuracies where they matter, then bet on the whole space.

Three parts, each of which can be left out for an ablation:

1. *Active accuracies.* A fifth of the accuracies is stratified, the others are asked for in small
   batches: where a network promises to enlarge the front of this device (expected hypervolume
   under both models, as for candidates), or may be the most accurate of all. What was asked for is
   then known exactly.
2. *The whole space* is predicted, where it is small; no evolution can miss anything.
3. *Expected hypervolume* of the set of candidates over joint draws, which knows that predictions
   are uncertain; known accuracies have no uncertainty left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.gaussian_process import BlockProcess
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.workflows.entrants.entry import Entry
from hwnas_sdk.workflows.search_protocol import Floats, Rows

STRATIFIED_SHARE: Final = 0.2
BATCH: Final = 6
"""Accuracies asked for at once: as a lab would, that trains some networks at a time."""

HOPEFUL_SHARE: Final = 0.4
"""Of a batch: drawn from the networks that may be the most accurate ones, whatever their cost."""

DOUBT: Final = 1.5
"""Factor on the standard deviation while asking: early models are too sure of what they never saw.

These four were chosen on two training devices of the public tables, each left out (normalised
hypervolume of auto-stratified .9925; of a share of .34, batches of 11 and no doubt .9939; of these
values .9953; five seeds)."""


def auto(entry: Entry) -> list[Rows]:
    """Everything of the module's docstring; with rounds, again with what was revealed."""
    return _run(entry, active=True)


def auto_stratified(entry: Entry) -> list[Rows]:
    """Ablation: the accuracies are those every other method gets."""
    return _run(entry, active=False)


def _run(entry: Entry, *, active: bool) -> list[Rows]:
    plan = entry.plan
    latency_rows = entry.reference_rows()
    everything = np.flatnonzero(entry.eligible)
    with entry.timed("ask"):
        error_rows = _active_rows(entry, latency_rows) if active else entry.accuracy_rows()
    entry.notes["accuracy_sampling"] = "active" if active else "latin hypercube"
    proposals: list[Rows] = []
    for number in range(plan.rounds):
        with entry.timed("fit"):
            accuracy = entry.fit_accuracy(error_rows)
            latency = entry.fit_latency(latency_rows)
        with entry.timed("search"):
            free = everything[entry.allowed(proposals)[everything]]
            predicted = entry.both(accuracy, latency)(entry.contest.genotypes[free])
            rows = entry.choose(
                free, *predicted, known=entry.attained(proposals), seed=entry.child_seed(number)
            )
        proposals.append(rows)
        if number + 1 < plan.rounds:
            error_rows = np.union1d(error_rows, rows)
            latency_rows = np.union1d(latency_rows, rows)
    return proposals


def _active_rows(entry: Entry, latency_rows: Rows) -> Rows:
    """Rows whose accuracy is asked for: stratified first, then by expected hypervolume."""
    n = entry.plan.train_accuracies
    latency = entry.fit_latency(latency_rows)
    rows = entry.accuracy_rows(max(min(n, 10), round(STRATIFIED_SHARE * n)))
    everything = np.flatnonzero(entry.eligible)
    while len(rows) < n:
        accuracy = entry.fit_accuracy(rows)
        free = np.setdiff1d(everything, rows)
        values, sd = _predict(entry, free, accuracy, latency)
        known, _ = _predict(entry, rows, accuracy, latency)
        sd[:, 0] *= DOUBT * max(1.0, _misjudged(accuracy))
        seed, k = entry.child_seed("accuracies", len(rows)), min(BATCH, n - len(rows))
        n_hopeful = round(HOPEFUL_SHARE * k)
        batch = entry.choose(free, values, sd, known=known, seed=seed, k=k - n_hopeful)
        hopeful = free[np.argsort(values[:, 0] - DOUBT * sd[:, 0])]
        hopeful = hopeful[~np.isin(hopeful, batch)][: _HOPEFUL_POOL * n_hopeful]
        drawn = np.random.default_rng(seed).permutation(hopeful)[:n_hopeful]
        rows = np.concatenate([rows, batch, drawn])
    return rows


_HOPEFUL_POOL: Final = 6


def _misjudged(accuracy: AccuracyModel) -> float:
    """Root mean square of the labels' leave-one-out errors, in the model's own sd."""
    assert isinstance(accuracy.regressor, BlockProcess)
    return float(np.sqrt(np.mean(accuracy.regressor.leave_one_out() ** 2)))


def _predict(
    entry: Entry, rows: Rows, accuracy: AccuracyModel, latency: LatencyModel
) -> tuple[Floats, Floats]:
    """Mean and sd of both objectives of `rows`; what was revealed is known."""
    return entry.recalled(rows, *entry.both(accuracy, latency)(entry.contest.genotypes[rows]))
