"""Accuracy models and the memory model."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.encodings import live_edges
from hwnas_sdk.predictors.memory import MemoryModel, analytic_mib
from hwnas_sdk.predictors.metrics import coverage, kendall
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.tables import load_tables

DEAD = np.zeros((1, 6), dtype=np.int64)


@pytest.fixture(scope="module")
def genotypes():
    genes = NasBench201().all_genotypes()
    return genes[live_edges(genes).any(axis=1)]


def synthetic_error(genes):
    return 6.0 + 30.0 * np.exp(-0.5 * (genes == 3).sum(axis=1) - 0.2 * (genes == 2).sum(axis=1))


def test_few_labels_rank_a_smooth_truth(genotypes):
    error = synthetic_error(genotypes)
    model = AccuracyModel.fit(genotypes[:100], error[:100])
    prediction = model.predict(genotypes)
    assert kendall(error, prediction.mean) > 0.7
    assert (prediction.sd > 0).all()


def test_unusable_labels_are_left_out(genotypes):
    error = synthetic_error(genotypes)[:40]
    clean = AccuracyModel.fit(genotypes[:40], error).predict(genotypes[:200])
    genes = np.concatenate([DEAD, genotypes[:40], genotypes[50:51]])
    dirty = AccuracyModel.fit(genes, np.r_[90.0, error, np.nan]).predict(genotypes[:200])
    np.testing.assert_allclose(dirty.mean, clean.mean, rtol=1e-6)


def test_dead_cells_guess(genotypes):
    for model in (AccuracyModel.shipped(), AccuracyModel.fit(genotypes[:20], np.full(20, 8.0))):
        assert model.predict(DEAD).mean.tolist() == [90.0]


def test_too_few_labels_are_refused(genotypes):
    with pytest.raises(ModelError, match="5 labelled"):
        AccuracyModel.fit(genotypes[:4], np.ones(4))
    with pytest.raises(ModelError, match="label"):
        AccuracyModel.fit(genotypes[:4], np.ones(3))


def test_labels_are_never_written(genotypes, tmp_path):
    model = AccuracyModel.fit(genotypes[:20], synthetic_error(genotypes[:20]))
    with pytest.raises(ModelError, match="labels"):
        model.save(tmp_path / "m.safetensors", data={}, metrics={})
    assert not list(tmp_path.iterdir())


def test_equal_functions_get_one_prediction(genotypes):
    twins = np.array([[1, 0, 0, 3, 2, 0], [0, 1, 0, 3, 0, 2]])  # nodes 1 and 2 swapped
    mean = AccuracyModel.shipped().predict(twins).mean
    assert mean[0] == pytest.approx(mean[1], rel=1e-5)


@pytest.mark.data
def test_hundred_public_labels_rank_unseen_families(shared_data):
    tables = load_tables([shared_data])
    error, live = tables.error_pct(), np.flatnonzero(tables.live)
    rows = np.random.default_rng(0).choice(live, 100, replace=False)
    rest = live[~np.isin(tables.families[live], tables.families[rows])]
    model = AccuracyModel.fit(tables.genotypes[rows], error[rows])
    prediction = model.predict(tables.genotypes[rest])
    assert kendall(error[rest], prediction.mean) > 0.79
    assert 0.85 < coverage(error[rest], prediction.mean, prediction.sd) < 0.97


@pytest.mark.data
def test_shipped_accuracy_model_knows_the_table(shared_data):
    tables = load_tables([shared_data])
    error = tables.error_pct()[tables.live]
    prediction = AccuracyModel.shipped().predict(tables.genotypes[tables.live])
    assert kendall(error, prediction.mean) > 0.9
    best = np.argsort(prediction.mean)[:50]
    assert error[best].mean() < 6.5


# --- memory -------------------------------------------------------------------------------------


def test_memory_is_offset_plus_slope():
    sizes = analytic_mib([1e6, 2e6, 4e6], [1e5, 1e5, 3e5])
    model = MemoryModel.fit(sizes, 30.0 + 1.5 * sizes)
    assert model.offset_mib == pytest.approx(30.0)
    assert model.slope == pytest.approx(1.5)
    assert model.predict([0.0])[0] == pytest.approx(30.0)


def test_memory_slope_is_at_least_one():
    assert MemoryModel.fit([1.0, 2.0, 3.0], [40.0, 39.0, 38.0]).slope == 1.0
    single = MemoryModel.fit([2.0], [40.0])
    assert (single.offset_mib, single.slope) == (38.0, 1.0)


def test_memory_needs_a_measurement():
    for sizes, measured in (([], []), ([1.0], [np.nan]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ModelError, match="memory model"):
            MemoryModel.fit(sizes, measured)
