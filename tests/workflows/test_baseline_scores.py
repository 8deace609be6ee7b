"""BRP-NAS' and GATES' scorers: both columns order as the labels do, and a search takes them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.neural.own_device import BrpNasModel, GatesModel
from hwnas_sdk.search.nsga2 import Nsga2Searcher
from hwnas_sdk.search.run import search
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.predictor import invented_cells, invented_values
from hwnas_sdk.workflows import baseline_scores
from hwnas_sdk.workflows.baseline_scores import FIT_SCORES


@pytest.fixture
def _short(monkeypatch):
    """Trainings of a fraction of a second: the order is easy here."""
    monkeypatch.setattr(baseline_scores, "RELATION_EPOCHS", 2)
    monkeypatch.setattr(baseline_scores, "RELATION_WIDTH", 48)
    monkeypatch.setattr(BrpNasModel, "epochs", 25)
    monkeypatch.setattr(GatesModel, "epochs", 60)


@pytest.mark.slow
@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("name", FIT_SCORES)
def test_scores_order_errors_and_latencies(name):
    cells = invented_cells(60)
    latencies = invented_values(cells, 1)
    errors = 40.0 - 8.0 * np.log(invented_values(cells, 3))
    scores = FIT_SCORES[name](cells[:40], errors[:40], cells[:10], latencies[:10], seed=0)
    values = scores(cells)
    assert values.shape == (60, 2)
    assert spearman(values[:40, 0], errors[:40]) > 0.5
    assert spearman(values[:10, 1], latencies[:10]) > 0.5
    np.testing.assert_allclose(scores(cells[:7]), values[:7], rtol=1e-4, atol=1e-4)
    space = get_space("nasbench201")
    searcher = Nsga2Searcher(space, population=10, seed=0)
    found = search(space, scores, searcher, 2, n_per_generation=10)
    assert len(found.front) > 0


@pytest.mark.parametrize("name", FIT_SCORES)
def test_too_few_labels_are_refused(name):
    cells = invented_cells(4)
    with pytest.raises(ModelError):
        FIT_SCORES[name](cells[:1], np.ones(1), cells, np.ones(4), seed=0)
