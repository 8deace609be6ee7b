from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.core import stats

_medians = st.lists(st.floats(0.1, 100), min_size=2, max_size=30).map(np.array)


def test_block_medians() -> None:
    blocks = [np.array([3, 1, 2]), np.array([10, 20])]
    assert stats.block_medians(blocks).tolist() == [2.0, 15.0]
    assert stats.block_medians([]).shape == (0,)


@given(_medians)
def test_interval_lies_within_the_data_and_is_reproducible(medians) -> None:
    low, high = stats.median_ci(medians)
    assert medians.min() - 1e-9 <= low <= high <= medians.max() + 1e-9
    assert stats.median_ci(medians[::-1]) == (low, high)


@given(_medians, st.floats(0.5, 4.0))
def test_interval_scales(medians, factor) -> None:
    width = stats.ci_half_width(medians)
    assert stats.ci_half_width(medians * factor) == pytest.approx(width * factor, abs=1e-9)


def test_interval_agrees_with_plain_resampling() -> None:
    medians = np.random.default_rng(0).normal(10, 1, 12)
    generator = np.random.Generator(np.random.PCG64(0))
    picks = generator.integers(0, 12, size=(2000, 12))
    expected = np.quantile(np.median(np.sort(medians)[picks], axis=1), [0.025, 0.975])
    assert stats.median_ci(medians) == pytest.approx(tuple(expected))


def test_interval_covers_the_median_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = stats.median_ci(draw.normal(5.0, 0.3, 15), n_resamples=400)
        hits += low <= 5.0 <= high
    assert 0.88 <= hits / 200 <= 1.0


def test_one_block_has_no_interval() -> None:
    assert stats.median_ci(np.array([1.0])) is None
    assert stats.ci_half_width(np.array([])) is None


def test_mad() -> None:
    assert stats.mad(np.array([1, 1, 2, 2, 4, 6, 9])) == 1.0


def test_outliers_are_counted() -> None:
    samples = np.concatenate([np.random.default_rng(0).normal(100, 1, 970), np.full(30, 500.0)])
    assert stats.outlier_fraction(samples) == pytest.approx(0.03)
    assert stats.outlier_fraction(np.array([])) == 0.0


def test_coarse_clock_makes_no_outliers() -> None:
    samples = np.array([1000] * 90 + [1001] * 10)
    assert stats.outlier_fraction(samples) == 0.0


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([1.0, 1.01, 1.2, 1.21], True),
        ([1.0, 1.01, 1.02, 1.03], False),
        ([1.0, 1.01, 1.02, 1.5], False),  # one block alone is a disturbance
        ([1.0, 1.2, 1.21], False),  # too few
        ([1.0, 1.1, 1.2, 1.3, 1.4], False),  # a slope, no groups
        ([1.3, 1.0, 1.31, 1.0, 1.3, 1.0], True),
        ([1.0, 1.0, 1.04, 1.04], False),
    ],
)
def test_bimodal(medians, expected) -> None:
    assert stats.is_bimodal(np.array(medians)) is expected


def test_cv() -> None:
    assert stats.cv(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2) / 2)
    assert stats.cv(np.array([1.0])) == 0.0
