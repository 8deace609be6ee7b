"""One measurement under two names: what counts as that, and what does not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.store.aliases import aliases_of, is_alias, refuse_aliases
from hwnas_sdk.store.tables import load_tables

RNG = np.random.default_rng(0)
COLUMN = RNG.uniform(1.0, 20.0, size=500)


def _noisy(relative: float) -> np.ndarray:
    return COLUMN * np.exp(relative * RNG.normal(size=500))


@pytest.mark.parametrize("factor", [1.0, 7.0, 1e-3])
def test_equal_and_proportional_columns_are_one(factor):
    other = factor * COLUMN
    other[::3] = np.nan  # measured on some of the architectures only
    assert is_alias(COLUMN, other)
    assert is_alias(other, COLUMN)


def test_a_copy_stays_one_with_rounding_and_a_few_other_values():
    other = np.round(COLUMN, 2)
    other[:4] *= 2.0
    assert is_alias(COLUMN, other)


def test_what_was_measured_twice_is_not_one():
    assert not is_alias(COLUMN, _noisy(0.02))
    assert not is_alias(COLUMN, COLUMN + 1.0)
    assert not is_alias(COLUMN, COLUMN**1.1)


def test_too_few_common_rows_prove_nothing():
    other = np.where(np.arange(500) < 19, COLUMN, np.nan)
    assert not is_alias(COLUMN, other)
    other[19] = COLUMN[19]
    assert is_alias(COLUMN, other)
    assert not is_alias(COLUMN, np.zeros(500))
    assert not is_alias(COLUMN, np.full(500, np.nan))


def test_both_are_named():
    known = {"x": _noisy(0.1), "y": 2.0 * COLUMN, "z": COLUMN}
    assert aliases_of(COLUMN, known) == ("y", "z")
    refuse_aliases({"x": known["x"]}, {"mine": COLUMN})
    with pytest.raises(ConfigError, match=r"'y'.*'mine'.*leave out y, z or mine") as caught:
        refuse_aliases(known, {"mine": COLUMN})
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_the_public_columns_that_are_one(shared_data):
    tables = load_tables([shared_data])
    found = {
        frozenset(pair)
        for pair in itertools.combinations(tables.latency_ms, 2)
        if is_alias(*(tables.latency_ms[name] for name in pair))
    }
    same = {frozenset({f"cifar10_{d}", d}) for d in ("raspi4", "pixel3", "fpga", "eyeriss")}
    assert same <= found
    # What else there is are other variants of the same simulations.
    assert all(all("fpga" in n or "eyeriss" in n for n in pair) for pair in found - same)
