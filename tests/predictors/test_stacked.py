"""The mixture of Bayesian and linear transfer."""

from __future__ import annotations

import numpy as np
import pytest
from predictor_devices import make_devices

from hwnas_sdk.predictors.bayes_transfer import BayesModel
from hwnas_sdk.predictors.stacked import StackedModel, learned_weight


@pytest.fixture(scope="module")
def devices():
    made = make_devices(4, noise_rel=0.05, n_cells=400)
    return made.genotypes, made.latency_ms


def test_the_mixture_lies_between_its_parts_and_needs_no_column(devices):
    cells, columns = devices
    known = {name: values.copy() for name, values in columns.items() if name != "device0"}
    for values in known.values():
        values[-1] = np.nan
    model = StackedModel.fit(cells, known)
    assert 0.0 <= model.weight <= 1.0
    y = columns["device0"][:10]
    mixed = StackedModel(model.bayes, model.linear, 0.5).adapt(cells[:10], y)
    mean = mixed.predict(cells).mean
    one, two = mixed.bayes.predict(cells), mixed.linear.predict(cells)
    np.testing.assert_allclose(mean[:-1], 0.5 * (one.mean + two.mean)[:-1])
    assert mean[-1] == one.mean[-1]  # no known device was measured there
    np.testing.assert_array_equal(mixed.predict(cells).sd, one.sd)


def test_a_part_that_is_always_right_gets_all_the_weight(devices, monkeypatch):
    cells, columns = devices
    same = {f"copy{i}": (i + 1) * columns["device0"] for i in range(3)}
    assert learned_weight(cells, same, seed=0) > 0.9  # a copy is exact, the features are not
    assert learned_weight(cells, dict(list(same.items())[:2]), seed=0) == 0.0
    assert isinstance(StackedModel.fit(cells, same).bayes, BayesModel)
