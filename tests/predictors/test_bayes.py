"""Latency transfer on synthetic devices, where the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from predictor_devices import make_devices

from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, N_FEATURES, structural_features
from hwnas_sdk.predictors.metrics import coverage, spearman
from hwnas_sdk.predictors.references import (
    PAPER_INDICES,
    REFERENCE_SETS,
    d_optimal_references,
)
from hwnas_sdk.predictors.surprise import surprise
from hwnas_sdk.spaces.nasbench201 import NasBench201


@pytest.fixture(scope="module")
def synthetic():
    return make_devices(6, noise_rel=0.02)


@pytest.fixture(scope="module")
def prior(synthetic):
    known = {name: y for name, y in synthetic.latency_ms.items() if name != "device0"}
    return LatencyPrior.fit(synthetic.features, known)


@pytest.mark.parametrize("k", [10, 400])
def test_new_device_is_predicted_with_honest_intervals(synthetic, prior, k):
    rows = d_optimal_references(prior, synthetic.features, k)
    truth = synthetic.latency_ms["device0"]
    model = prior.adapt(synthetic.features[rows], truth[rows])
    prediction = model.predict(synthetic.features)
    assert spearman(truth, prediction.mean) > 0.98
    assert 0.8 < coverage(truth, prediction.mean, prediction.sd) <= 1.0
    assert model.n_samples == k


@pytest.mark.slow
def test_noise_is_estimated_per_device(prior):
    rows = np.arange(200)
    for noise in (0.005, 0.02, 0.1):
        devices = make_devices(1, noise_rel=noise, seed=3)
        fitted = prior.adapt(devices.features[rows], devices.latency_ms["device0"][rows])
        assert noise / 2 < fitted.noise_rel < noise * 2


def test_prediction_scales_with_the_unit(synthetic, prior):
    rows = d_optimal_references(prior, synthetic.features, 10)
    y = synthetic.latency_ms["device0"][rows]
    x = synthetic.features
    one, thousand = prior.adapt(x[rows], y).predict(x), prior.adapt(x[rows], 1000 * y).predict(x)
    np.testing.assert_allclose(thousand.mean, 1000 * one.mean, rtol=1e-9)
    np.testing.assert_allclose(thousand.sd, 1000 * one.sd, rtol=1e-9)


@pytest.mark.slow
def test_more_measurements_make_the_mean_surer(synthetic, prior):
    x, y = synthetic.features, synthetic.latency_ms["device0"]
    errors = []
    for k in (3, 30, 300):
        mean = prior.adapt(x[:k], y[:k]).predict(x).mean
        errors.append(float(np.median(np.abs(mean - y) / y)))
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.slow
def test_compressed_rows_change_nothing(synthetic, prior):
    """Above F rows the system is compressed; the answer must be continuous there."""
    x, y = synthetic.features, synthetic.latency_ms["device0"]
    below = prior.adapt(x[:N_FEATURES], y[:N_FEATURES]).predict(x)
    above = prior.adapt(x[: N_FEATURES + 1], y[: N_FEATURES + 1]).predict(x)
    np.testing.assert_allclose(above.mean, below.mean, rtol=0.02)
    np.testing.assert_allclose(above.sd, below.sd, rtol=0.1)


def test_without_measurements_the_prior_ranks_and_admits_its_scale(synthetic, prior):
    model = prior.adapt(np.empty((0, N_FEATURES)), np.empty(0))
    prediction = model.predict(synthetic.features)
    assert spearman(synthetic.latency_ms["device0"], prediction.mean) > 0.9
    assert (prediction.sd > 0.5 * prediction.mean).all()


def test_uncertain_measurements_move_the_model_less(synthetic, prior):
    x, y = synthetic.features[:20], synthetic.latency_ms["device0"][:20].copy()
    y[0] *= 3.0  # one outlier
    trusted = prior.adapt(x, y, np.zeros(20)).predict(x[:1]).mean
    doubted = prior.adapt(x, y, np.r_[2.0, np.zeros(19)]).predict(x[:1]).mean
    assert doubted < trusted


def test_one_disturbed_measurement_of_ten_does_no_harm(synthetic, prior):
    x, truth = synthetic.features, synthetic.latency_ms["device0"]
    rows = d_optimal_references(prior, x, 10)
    y = truth[rows].copy()
    clean = prior.adapt(x[rows], y)
    assert clean.outlier_probability.max() < 0.5
    y[8] *= 2.5
    disturbed = prior.adapt(x[rows], y)
    assert disturbed.outlier_probability.argmax() == 8
    assert disturbed.outlier_probability[8] > 0.9
    trusting = replace(prior, settings=replace(prior.settings, outlier_rate=0.0))
    errors = [
        float(np.median(np.abs(model.predict(x).mean / truth - 1)))
        for model in (clean, disturbed, trusting.adapt(x[rows], y))
    ]
    assert errors[1] < 1.5 * errors[0] < errors[2]


def test_a_too_fast_network_is_an_outlier_only_where_a_converter_can_fold_it(synthetic, prior):
    x, truth = synthetic.features, synthetic.latency_ms["device0"]
    dead_edges = x[:, FEATURE_NAMES.index("dead_edges")]
    plain = np.flatnonzero(dead_edges == 0)[:9]
    for suspect, expected in ((np.flatnonzero(dead_edges > 1)[0], True),
                              (np.flatnonzero(dead_edges == 0)[20], False)):  # fmt: skip
        rows = np.append(plain, suspect)
        y = truth[rows].copy()
        y[-1] *= 0.2
        probability = prior.adapt(x[rows], y).outlier_probability
        assert (probability[-1] > 0.9) == expected


def test_many_measurements_drop_their_clear_outliers(synthetic, prior):
    x, y = synthetic.features[:60], synthetic.latency_ms["device0"][:60].copy()
    y[[5, 17]] *= 3.0
    probability = prior.adapt(x, y).outlier_probability
    assert set(np.flatnonzero(probability > 0.5)) == {5, 17}


def test_a_device_like_the_known_ones_is_no_surprise_and_a_shuffled_one_is(synthetic, prior):
    x, truth = synthetic.features, synthetic.latency_ms["device0"]
    rows = d_optimal_references(prior, x, 10)
    assert surprise(prior, x[rows], truth[rows]) > 0.05
    shuffled = np.random.default_rng(0).permutation(truth[rows])
    assert surprise(prior, x[rows], shuffled) < 0.01
    assert surprise(prior, x[rows], 7 * truth[rows]) == surprise(prior, x[rows], truth[rows])
    assert surprise(prior, x[:2], truth[:2]) == 1.0


def test_missing_values_and_dead_cells_teach_nothing(synthetic):
    x = np.concatenate([synthetic.features, structural_features(np.zeros((1, 6), dtype=int))])
    y = np.append(synthetic.latency_ms["device1"], 1e6)
    holes = y.copy()
    holes[::3] = np.nan
    full = LatencyPrior.fit(synthetic.features, {"a": synthetic.latency_ms["device1"]})
    np.testing.assert_allclose(LatencyPrior.fit(x, {"a": y}).mean, full.mean, atol=1e-12)
    fewer = LatencyPrior.fit(x, {"a": holes})
    rows = np.arange(10)
    guess = fewer.adapt(x[rows], y[rows]).predict(x[:-1]).mean
    assert spearman(y[:-1], guess) > 0.98


def test_round_trip_through_files(synthetic, prior, tmp_path):
    path = tmp_path / "prior.safetensors"
    prior.save(path, data={"source": "synthetic"})
    first = path.read_bytes(), path.with_suffix(".json").read_bytes()
    loaded = LatencyPrior.load(path)
    loaded.save(path, data={"source": "synthetic"})
    assert first == (path.read_bytes(), path.with_suffix(".json").read_bytes())
    x, y = synthetic.features[:10], synthetic.latency_ms["device0"][:10]
    np.testing.assert_array_equal(
        prior.adapt(x, y).predict(x).mean, loaded.adapt(x, y).predict(x).mean
    )


@pytest.mark.parametrize(
    ("latency", "rel_sd"),
    [([1.0, 0.0], None), ([1.0, np.nan], None), ([1.0], None), ([1.0, 2.0], [-1.0, 0.0])],
)
def test_wrong_measurements_are_refused(synthetic, prior, latency, rel_sd):
    with pytest.raises(ModelError, match="latency model"):
        prior.adapt(synthetic.features[:2], np.array(latency), rel_sd and np.array(rel_sd))


def test_a_prior_needs_a_device_with_rows(synthetic):
    nothing = np.full(len(synthetic.features), np.nan)
    for latencies in ({}, {"a": nothing}, {"a": nothing[:3]}):
        with pytest.raises(ModelError):
            LatencyPrior.fit(synthetic.features, latencies)
    with pytest.raises(ModelError, match="features"):
        LatencyPrior.fit(synthetic.features[:, :5], {"a": nothing})


# --- references -------------------------------------------------------------------------------


def test_design_is_nested_distinct_and_eligible(synthetic, prior):
    eligible = np.arange(len(synthetic.features)) % 2 == 0
    ten = d_optimal_references(prior, synthetic.features, 10, eligible=eligible)
    assert len(set(ten.tolist())) == 10
    assert eligible[ten].all()
    four = d_optimal_references(prior, synthetic.features, 4, eligible=eligible)
    assert four.tolist() == ten[:4].tolist()
    with pytest.raises(ConfigError, match="cannot pick"):
        d_optimal_references(prior, synthetic.features, 2, eligible=eligible & False)


def test_designed_references_beat_random_ones_on_determinant(synthetic, prior):
    def information(rows):
        z = prior.standardise(synthetic.features[rows]) @ prior.covariance_root()
        z /= prior.typical(prior.standardise(synthetic.features[rows]))[:, None]
        return np.linalg.slogdet(np.eye(len(rows)) + z @ z.T / 0.05**2)[1]

    designed = information(d_optimal_references(prior, synthetic.features, 7))
    rng = np.random.default_rng(0)
    others = [information(rng.choice(len(synthetic.features), 7)) for _ in range(20)]
    assert designed > max(others)


def test_shipped_sets_are_live_official_strings():
    space = NasBench201()
    for strings in REFERENCE_SETS.values():
        cells = [space.decode(text) for text in strings]
        assert len(set(cells)) == 10
        assert not any(space.is_dead(cell) for cell in cells)
    official = tuple(space.encode(space.from_index(i)) for i in PAPER_INDICES)
    assert REFERENCE_SETS["paper-10"] == official
