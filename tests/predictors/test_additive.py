"""Devices that are exactly a sum of costs, and those that only nearly are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from predictor_devices import make_devices

from hwnas_sdk.predictors._additive import EXACT_REL, additive_design, exact_costs
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import FEATURE_GROUPS, FEATURE_NAMES, structural_features
from hwnas_sdk.predictors.metrics import coverage, kendall, tied_pairs
from hwnas_sdk.predictors.references import d_optimal_references
from hwnas_sdk.predictors.surprise import surprise
from hwnas_sdk.spaces.nasbench201 import NasBench201

COSTS = np.array([1.7, 0.0, 0.25, 1.5, 0.4])  # the skip is free, as on published simulators


@pytest.fixture(scope="module")
def devices():
    return make_devices(5, noise_rel=0.02)


@pytest.fixture(scope="module")
def prior(devices):
    return LatencyPrior.fit(devices.features, devices.latency_ms)


@pytest.fixture(scope="module")
def rows(devices, prior):
    return d_optimal_references(prior, devices.features, 10)


def stored(values):
    """As tables keep them."""
    return values.astype(np.float32).astype(np.float64)


def test_a_simulated_device_is_predicted_with_its_ties(devices, prior, rows):
    truth = stored(3.0 * additive_design(devices.features) @ COSTS)
    posterior = prior.adapt(devices.features[rows], truth[rows])
    mean, sd = posterior.predict(devices.features)
    np.testing.assert_allclose(mean, truth, rtol=1e-5)
    assert tied_pairs(mean) == tied_pairs(np.round(truth, 4)) > 0
    assert kendall(np.round(truth, 4), mean) == pytest.approx(1.0, abs=1e-12)
    assert (sd > 0).all()
    assert (sd < 1e-4 * truth).all()
    assert coverage(truth, mean, sd) > 0.85


def test_a_board_is_not_taken_for_a_simulator(devices, prior, rows):
    clean = additive_design(devices.features) @ COSTS
    noise = np.random.default_rng(0).normal(size=len(clean))
    board = clean * np.exp(0.001 * noise)
    assert exact_costs(devices.features[rows], board[rows]) is None
    assert prior.adapt(devices.features[rows], board[rows]).noise_rel > 10 * EXACT_REL


def test_values_of_stated_doubt_are_not_taken_for_exact(devices, prior, rows):
    values = (additive_design(devices.features) @ COSTS)[rows]
    assert prior.adapt(devices.features[rows], values, np.zeros(10)).resolution > 0
    assert prior.adapt(devices.features[rows], values, np.full(10, 0.01)).resolution == 0


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_the_unit_does_not_matter(devices, rows, unit):
    values = (additive_design(devices.features) @ (np.pi * COSTS))[rows]
    found = exact_costs(devices.features[rows], unit * values)
    np.testing.assert_allclose(found, unit * np.pi * COSTS, rtol=1e-6)


def test_one_wrong_value_ends_the_belief(devices, prior, rows):
    values = (additive_design(devices.features) @ COSTS)[rows]
    assert exact_costs(devices.features[rows], values) is not None
    values[3] *= 1.01
    assert exact_costs(devices.features[rows], values) is None


def test_costs_that_depend_on_position_are_not_additive(devices, rows):
    values = additive_design(devices.features) @ COSTS
    values += 0.1 * devices.features[:, FEATURE_NAMES.index("live_conv3")]
    assert exact_costs(devices.features[rows], values[rows]) is None


def test_too_few_or_too_similar_samples_prove_nothing():
    cells = NasBench201().all_genotypes()
    features = structural_features(cells)
    values = additive_design(features) @ COSTS
    varied = np.random.default_rng(1).permutation(len(cells))
    assert exact_costs(features[varied[:9]], values[varied[:9]]) is None
    assert exact_costs(features[varied[:12]], values[varied[:12]]) is not None
    repeated = np.tile(varied[:9], 3)
    assert exact_costs(features[repeated], values[repeated]) is None
    alive = varied[features[varied, FEATURE_NAMES.index("dead_edges")] == 0][:200]
    assert exact_costs(features[alive], values[alive]) is None
    no_pool = np.flatnonzero(features[:, FEATURE_NAMES.index("raw_pool")] == 0)[:200]
    assert exact_costs(features[no_pool], values[no_pool]) is None


@given(
    costs=hnp.arrays(np.float64, 5, elements=st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.5, 40.0])),
    seed=st.integers(0, 2**16),
)
def test_any_costs_are_found_again(costs, seed):
    costs[0] = max(costs[0], 0.01)
    cells = np.random.default_rng(seed).integers(0, 5, size=(40, 6))
    features = structural_features(cells)
    costs *= np.pi  # no coarse clock
    values = stored(additive_design(features) @ costs)
    found = exact_costs(features, values)
    raw, live = (features[:, FEATURE_GROUPS[name]] for name in ("raw_counts", "live_counts"))
    if ((raw - live) @ costs[1:] > 2e-3 * values).any():
        np.testing.assert_allclose(found, costs, rtol=1e-3, atol=1e-4 * costs.max())
    else:  # what dead operators cost can hardly be seen
        assert found is None or np.abs(additive_design(features) @ found / values - 1).max() < 1e-5


@pytest.mark.parametrize("clock", [np.ones_like, np.ceil])
def test_a_coarse_clock_is_not_taken_for_a_simulator(devices, rows, clock):
    values = clock(additive_design(devices.features) @ (0.2 * COSTS))[rows]
    assert len(np.unique(values)) <= 3
    assert exact_costs(devices.features[rows], values) is None
    one_value = np.full(len(rows), np.pi)
    assert exact_costs(devices.features[rows], one_value) is None


def test_a_prior_is_not_deceived_by_a_coarse_clock(devices, prior):
    """It divides by a scale of its own, and whole milliseconds over that are not whole."""
    whole_ms = additive_design(devices.features) @ np.array([3.0, 0.0, 1.0, 2.0, 1.0])
    chosen = np.random.default_rng(0).choice(len(whole_ms), 30, replace=False)
    features = devices.features[chosen]
    assert prior.adapt(features, whole_ms[chosen]).resolution == 0.0
    assert prior.adapt(features, np.pi * whole_ms[chosen]).resolution > 0.0


def test_the_surprise_of_a_simulator_is_finite(devices, prior, rows):
    truth = additive_design(devices.features) @ COSTS
    assert np.isfinite(surprise(prior, devices.features[rows], truth[rows]))
