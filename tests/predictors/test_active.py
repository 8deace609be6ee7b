"""Choosing the next network to measure by what it is expected to teach."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.active import (
    N_POOL,
    active_references,
    candidate_rows,
    half_width_pct,
    next_reference,
    variance_reduction,
)
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.spaces.nasbench201 import NasBench201

CELLS = NasBench201().all_genotypes()[::40]
FEATURES = structural_features(CELLS)
LIVE = np.asarray(live_edges(CELLS)).any(axis=1)


@pytest.fixture(scope="module")
def prior() -> LatencyPrior:
    return LatencyPrior.shipped()


def latency(row: int) -> float:
    """A device of its own: something per convolution, and 2 % of scatter."""
    scatter = np.random.default_rng(row).normal()
    cost = 2.0 + (CELLS[row] == 3).sum() * 3.0 + (CELLS[row] == 2).sum() + (CELLS[row] == 4).sum()
    return float(cost * np.exp(0.02 * scatter))


def test_measuring_takes_off_what_was_promised(prior: LatencyPrior) -> None:
    """The promise is the Gaussian update's, computed here the long way."""
    rows = np.flatnonzero(LIVE)[:6]
    model = prior.adapt(FEATURES[rows], np.array([latency(int(r)) for r in rows]))
    candidates, pool = FEATURES[LIVE][10:14], FEATURES[LIVE][20:60]
    promised = variance_reduction(model, candidates, pool)

    def scaled(features: np.ndarray) -> np.ndarray:
        x = prior.standardise(features)
        return x / prior.typical(x)[:, None]

    y = scaled(pool)
    before = np.diag(y @ model.covariance @ y.T).mean()
    for gain, x in zip(promised, scaled(candidates), strict=True):
        column = model.covariance @ x
        after = model.covariance - np.outer(column, column) / (x @ column + model.noise_variance)
        assert before - np.diag(y @ after @ y.T).mean() == pytest.approx(gain, rel=1e-6)


def test_choices_are_live_distinct_and_repeatable(prior: LatencyPrior) -> None:
    asked: list[int] = []

    def measure(row: int) -> float:
        asked.append(row)
        return latency(row)

    start = np.flatnonzero(LIVE)[[0, 50, 100]]
    options = {"start": start, "eligible": LIVE, "measure": measure}
    chosen = active_references(prior, FEATURES, 9, **options)
    assert chosen.tolist() == asked  # nothing but the chosen is looked at, each once
    assert len(set(asked)) == 9
    assert LIVE[chosen].all()
    assert chosen[:3].tolist() == start.tolist()
    assert active_references(prior, FEATURES, 9, **options).tolist() == chosen.tolist()
    assert active_references(prior, FEATURES, 2, **options).tolist() == start[:2].tolist()
    with pytest.raises(ConfigError, match="cannot pick"):
        active_references(prior, FEATURES, int(LIVE.sum()) + 1, **options)


def test_chosen_networks_beat_as_many_repeats_of_the_start(prior: LatencyPrior) -> None:
    """Variance over the space, not only at what is measured, must fall."""
    rows = candidate_rows(LIVE)
    start = np.flatnonzero(LIVE)[:3]
    pool = FEATURES[rows[:N_POOL]]

    def spread(chosen: np.ndarray) -> float:
        values = np.array([latency(int(r)) for r in chosen])
        return half_width_pct(prior.adapt(FEATURES[chosen], values), pool)

    active = active_references(prior, FEATURES, 9, start=start, eligible=LIVE, measure=latency)
    assert spread(active) < 0.8 * spread(np.repeat(start, 3))


def test_nothing_left_and_nothing_eligible(prior: LatencyPrior) -> None:
    rows = candidate_rows(LIVE, n=4)
    model = prior.adapt(FEATURES[rows], np.array([latency(int(r)) for r in rows]))
    assert next_reference(model, FEATURES, rows, taken=rows.tolist()) is None
    assert next_reference(model, FEATURES, rows, taken=rows[:3].tolist()) == rows[3]
    with pytest.raises(ConfigError, match="no live cell"):
        candidate_rows(np.zeros(5, dtype=bool))


def test_predictions_below_nothing_are_not_precise(prior: LatencyPrior) -> None:
    rows = candidate_rows(LIVE, n=4)
    model = prior.adapt(FEATURES[rows], np.array([latency(int(r)) for r in rows]))
    from dataclasses import replace

    assert half_width_pct(replace(model, weights=-model.weights), FEATURES[rows]) == np.inf
