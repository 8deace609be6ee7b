"""A device that is a sum of operator costs unlike the known ones', and values that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from predictor_devices import make_devices

from hwnas_sdk.predictors._posterior import grid_points
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import FEATURE_NAMES
from hwnas_sdk.predictors.metrics import coverage, spearman


@pytest.fixture(scope="module")
def devices():
    return make_devices(6, noise_rel=0.02)


@pytest.fixture(scope="module")
def prior(devices):
    return LatencyPrior.fit(devices.features, devices.latency_ms)


@pytest.fixture(scope="module")
def accelerator_ms(devices):
    """Pooling is the dearest, and only what is not dead counts: like no known device."""
    costs = {"constant": 1.0, "live_pool": 3.0, "live_skip": 1.0, "live_conv1": 0.7,
             "live_conv3": 0.4}  # fmt: skip
    clean = sum(c * devices.features[:, FEATURE_NAMES.index(name)] for name, c in costs.items())
    return clean * np.exp(0.03 * np.random.default_rng(5).normal(size=len(clean)))


def test_costs_like_no_known_ones_are_learned_from_ten(devices, prior, accelerator_ms):
    without = replace(prior, settings=replace(prior.settings, sums_grid=()))
    draws = [np.random.default_rng(s).choice(len(accelerator_ms), 10, False) for s in range(8)]
    scores, covered = {}, []
    for name, known in (("with", prior), ("without", without)):
        scores[name] = []
        for rows in draws:
            model = known.adapt(devices.features[rows], accelerator_ms[rows])
            mean, sd = model.predict(devices.features)
            scores[name].append(spearman(accelerator_ms, mean))
            if known is prior:
                covered.append(coverage(accelerator_ms, mean, sd))
    assert np.mean(scores["with"]) > np.mean(scores["without"]) + 0.02
    assert np.mean(covered) > 0.8


def test_a_device_like_the_known_ones_is_predicted_as_before(devices, prior):
    without = replace(prior, settings=replace(prior.settings, sums_grid=()))
    y = devices.latency_ms["device0"]
    means = [
        known.adapt(devices.features[:10], y[:10]).predict(devices.features).mean
        for known in (prior, without)
    ]
    np.testing.assert_allclose(means[0], means[1], rtol=0.02)


def test_the_covariance_of_a_grid_point_is_its_parts(prior):
    points = grid_points(prior.settings)
    assert len(points) == len(set(points)) == 4 * 7 + 4
    parts = prior.covariance_parts
    counts = [FEATURE_NAMES.index(name) for name in ("raw_conv3", "live_pool")]
    for point in (points[0], points[-1]):
        expected = (
            parts.scale
            + point.transfer**2 * parts.known
            + point.own**2 * parts.own
            + point.sums**2 * parts.sums
        )
        np.testing.assert_allclose(parts.at(point), expected)
    assert points[0].sums == points[-1].transfer == 0
    np.testing.assert_allclose(np.diag(parts.sums)[counts], 1.0)
    assert parts.sums[FEATURE_NAMES.index("live_adds")].any() == 0


def test_a_card_older_than_the_grid_is_read_as_it_was_judged(prior, tmp_path):
    path = tmp_path / "prior.safetensors"
    prior.save(path, data={"tables": "invented"})
    assert LatencyPrior.load(path).settings == prior.settings
    card = path.with_suffix(".json")
    stored = json.loads(card.read_text())
    del stored["settings"]["sums_grid"]
    card.write_text(json.dumps(stored))
    assert LatencyPrior.load(path).settings == replace(prior.settings, sums_grid=())


def test_no_live_network_takes_no_time_and_none_changes_its_place(devices, prior):
    features = devices.features
    y = devices.latency_ms["device0"]
    model = prior.adapt(features[:10], y[:10])
    # As if the fixed costs were over-estimated: a third of all networks would be below zero.
    standard = prior.standardise(features)
    constant = FEATURE_NAMES.index("constant")
    low = replace(model, weights=model.weights.copy())
    low.weights[constant] -= np.quantile(standard @ model.weights, 0.33) / standard[0, constant]
    shifted = standard @ low.weights
    assert (shifted < 0).mean() > 0.2
    mean = low.predict(features).mean
    assert mean.min() >= 0.05 * y[:10].min() * 0.999
    high = shifted > model.least
    np.testing.assert_allclose(mean[high], shifted[high] * model.scale_ms)
    assert (np.diff(mean[np.argsort(shifted)]) >= 0).all()
