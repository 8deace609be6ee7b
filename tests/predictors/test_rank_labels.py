"""Costs of a rank predictor that are exactly a sum over the decisions, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest
from rank_space import Chains

from hwnas_sdk import pareto
from hwnas_sdk.predictors.encodings import executed_cells, live_edges
from hwnas_sdk.predictors.graphs import one_hot
from hwnas_sdk.predictors.population import population_of
from hwnas_sdk.predictors.rank import RankPredictor
from hwnas_sdk.predictors.rank_labels import Labels
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.rank import toy_objectives

SPACE = Chains()
EVERYONE = population_of(SPACE)
LAW = np.tile([1.013, 1.507, 1.507, 4.009], 4)  # two widths cost the same: ties


@pytest.fixture
def summed():
    return (one_hot(SPACE, EVERYONE.genotypes) @ LAW).astype(np.float32).astype(np.float64)


@pytest.fixture
def rows():
    return np.random.default_rng(0).permutation(len(EVERYONE))[:60]


def cost_labels(rows, values):
    return Labels.of_cost(SPACE, EVERYONE.genotypes[rows], values[rows], "board")


def test_an_exact_sum_is_known_everywhere_with_its_ties(summed, rows):
    labels = cost_labels(rows, summed)
    mean, sd = labels.costs_of(EVERYONE)
    np.testing.assert_allclose(np.exp(mean), summed, rtol=1e-4)
    assert not sd.any()
    assert len(np.unique(mean)) == len(np.unique(np.round(summed, 3)))


def test_a_noisy_board_is_a_process(summed, rows):
    noisy = summed * np.exp(0.001 * np.random.default_rng(1).normal(size=len(summed)))
    labels = cost_labels(rows, noisy)
    assert labels.law(SPACE) is None
    for ours, process in zip(labels.costs_of(EVERYONE), labels.process_of(EVERYONE), strict=True):
        np.testing.assert_array_equal(ours, process)
    assert labels.costs_of(EVERYONE)[1].min() > 0


def test_a_choice_that_was_never_measured_has_no_price(summed):
    unseen = np.flatnonzero(EVERYONE.genotypes[:, 0] != 3)[:60]
    assert cost_labels(unseen, summed).law(SPACE) is None


def test_few_different_values_are_no_law(summed, rows):
    assert cost_labels(rows, np.full_like(summed, 15.625)).law(SPACE) is None
    assert cost_labels(rows, np.where(EVERYONE.genotypes[:, 0] > 1, 2.013, 1.0)).law(SPACE) is None


def test_only_dead_operators_that_cost_show_that_a_runtime_removes_none():
    space = NasBench201()
    cells = space.all_genotypes()[np.random.default_rng(0).permutation(15_625)]
    alive = cells[live_edges(cells).any(axis=1)]
    without_dead = alive[(executed_cells(alive) == alive).all(axis=1)][:200]
    for removes, given, known in (
        (False, alive[:200], True),
        (True, alive[:200], False),  # not a sum over all operators
        (True, without_dead, False),  # a sum on these, and wrong elsewhere
    ):
        ran = executed_cells(given) if removes else given
        costs = 1.7 + np.array([0.0, 0.1, 0.31, 1.53, 0.47])[ran].sum(axis=1)
        law = Labels.of_cost(space, given, costs, "board").law(space)
        assert (law is not None) == known


def test_a_simulator_is_ranked_and_kept_in_a_file(summed, rows, tmp_path):
    error, _ = toy_objectives(SPACE, EVERYONE.genotypes)
    genes = EVERYONE.genotypes
    model = RankPredictor.fit(SPACE, genes[rows], error[rows], {"board": summed[rows]}, draws=32)
    truth = pareto.ranks(np.column_stack([error, np.round(summed, 3)]))
    found = model.expected_ranks(genes, "board")
    assert np.corrcoef(truth, found)[0, 1] > 0.9
    path = tmp_path / "ranks.safetensors"
    model.save(path, data={}, metrics={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwnas_sdk.predictors.rank.get_space", lambda name: SPACE)
        loaded = RankPredictor.load(path)
    np.testing.assert_array_equal(loaded.score(genes, "board"), model.score(genes, "board"))
