"""Rank correlation, ties, percentage errors, coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.predictors.metrics import (
    absolute_percentage_errors,
    agreement,
    coverage,
    kendall,
    kendall_ceiling,
    kendall_rounded,
    reading_step,
    spearman,
    tied_pairs,
)

vectors = st.lists(st.integers(0, 6), min_size=2, max_size=12)


@given(vectors, st.randoms(use_true_random=False))
def test_kendall_is_tau_b(truth, random):
    predicted = [random.randint(0, 4) for _ in truth]
    pairs = list(itertools.combinations(range(len(truth)), 2))
    signs = [(np.sign(truth[i] - truth[j]), np.sign(predicted[i] - predicted[j])) for i, j in pairs]
    weight = np.sqrt(float(sum(a != 0 for a, _ in signs)) * sum(b != 0 for _, b in signs))
    found = kendall(truth, predicted)
    if weight == 0:
        assert found is None
    else:
        assert found == pytest.approx(sum(a * b for a, b in signs) / weight)
    assert tied_pairs(truth) == sum(a == 0 for a, _ in signs)


@given(vectors)
def test_no_strict_order_beats_the_ceiling(truth):
    ceiling = kendall_ceiling(truth)
    best = np.argsort(np.argsort(truth, kind="stable"))
    reached = kendall(truth, best)
    if reached is not None:
        assert reached == pytest.approx(ceiling)


def test_spearman_of_a_monotone_map_is_one():
    x = np.array([3.0, 1.0, 2.0, 9.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    assert spearman(x, np.ones(4)) is None
    assert spearman([1.0], [1.0]) is None


def test_percentage_errors_leave_out_zero_truths():
    np.testing.assert_allclose(absolute_percentage_errors([0.0, 2.0], [1.0, 1.0]), [50.0])


def test_coverage_of_a_normal_is_ninety_percent():
    truth = np.random.default_rng(0).normal(size=20_000)
    assert coverage(truth, np.zeros(20_000), np.ones(20_000)) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([3.0, 4.0, 11.0], 1.0),
        ([0.03, 0.5, 0.11], 0.01),
        ([300.0, 1200.0], 100.0),
        ([512.0, 1023.0], None),  # whole, but a step of 1 hides nothing there
        ([1.25017, 3.49913], None),
        ([0.00003, 0.00004], 0.00001),
        ([0.00051237, 0.00093491], None),
        (np.float32([0.1, 0.7, 1.3, 7.9]), 0.1),
        ([], None),
    ],
)
def test_the_step_of_coarse_readings_is_found(values, step):
    assert reading_step(values) == (None if step is None else pytest.approx(step))


def test_rounding_a_prediction_gives_it_the_ties_of_the_truth():
    truth = np.array([3.0, 3.0, 4.0, 5.0, 5.0, 8.0])
    predicted = np.array([2.9, 3.2, 3.9, 5.3, 4.8, 8.1])
    assert kendall(truth, predicted) < kendall_rounded(truth, predicted) == pytest.approx(1.0)
    assert kendall_rounded(truth + 0.0037 * np.arange(6), predicted) is None


def test_agreement_collects_all():
    figures = agreement([1.0, 2.0, 2.0], [1.1, 2.0, 2.2], [0.1, 0.1, 0.1])
    assert figures.n == 3
    assert figures.n_tied_pairs == 1
    assert figures.mape_pct == pytest.approx(20 / 3)
    assert figures.coverage90 == pytest.approx(2 / 3)
    assert agreement([1.0, 2.0], [1.0, 2.0]).coverage90 is None


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [1.0]])
def test_wrong_vectors_are_refused(bad):
    with pytest.raises(ValueError, match=r"one length|finite"):
        spearman([1.0, 2.0], bad)
