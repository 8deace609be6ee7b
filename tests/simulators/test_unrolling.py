from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.simulators.description import Array, MappingRules, load_description, shipped_path
from hwnas_sdk.simulators.unrolling import unrollings
from hwnas_sdk.simulators.workload import ArrayWork

EYERISS = load_description(shipped_path("eyeriss"))


def square(k: int, c: int, size: int, kernel: int) -> ArrayWork:
    return ArrayWork(K=k, C=c, G=1, OX=size, OY=size, FX=kernel, FY=kernel)


@pytest.mark.parametrize(("channels", "size"), [(16, 32), (32, 16), (64, 8)])
def test_row_stationary_uses_whole_factors_of_the_array(channels: int, size: int) -> None:
    """8 of 14 columns; 3 filter rows x 4, or 8 channels where the filter has one row."""
    three = unrollings(square(channels, channels, size, 3), EYERISS.array, EYERISS.mapping)
    one = unrollings(square(channels, channels, size, 1), EYERISS.array, EYERISS.mapping)
    assert {found.elements for found in three} == {96}
    assert all(found.rows["FY"] == 3 for found in three)
    assert {found.elements for found in one} == {64}
    assert three[0].text() == "columns OY8 | rows FY3 K4"


def test_there_is_always_one() -> None:
    tiny = unrollings(square(1, 1, 1, 1), EYERISS.array, EYERISS.mapping)
    assert [(found.elements, found.passes) for found in tiny] == [(1, 1)]
    assert tiny[0].text() == "nothing unrolled"


def test_more_rows_than_the_array_has_are_cut() -> None:
    for found in unrollings(square(4, 4, 8, 15), EYERISS.array, EYERISS.mapping):
        assert found.rows["FY"] == 5


SIZES = st.integers(1, 20)


@settings(max_examples=30)
@given(SIZES, SIZES, SIZES, st.sampled_from([1, 3, 5]), st.sampled_from(["divisors", "any"]))
def test_mappings_are_legal_and_the_first_has_the_fewest_passes(
    k, c, size, kernel, factors
) -> None:
    work = square(k, c, size, kernel)
    array = Array(columns=5, rows=7, mac_pj=0.0)
    rules = MappingRules(columns=["OY", "K"], rows=["C", "K"], factors=factors, candidates=50)
    found = unrollings(work, array, rules)
    for one in found:
        assert math.prod(one.columns.values()) <= 5
        assert math.prod(one.rows.values()) <= 7
        for loop in ("K", "C", "OY"):
            factor = one.total(loop)
            assert factor <= work.bound(loop)
            assert factors == "any" or work.bound(loop) % factor == 0
        assert one.passes * one.elements >= work.macs
    best = min(
        math.ceil(size / oy) * math.ceil(k / (k1 * k2)) * math.ceil(c / ch)
        for oy in range(1, min(5, size) + 1)
        for k1 in range(1, 5 // oy + 1)
        for ch in range(1, min(7, c) + 1)
        for k2 in range(1, 7 // ch + 1)
        if k1 * k2 <= k
        and (factors == "any" or not (size % oy or k % (k1 * k2) or k % k1 or k % k2 or c % ch))
    )
    assert found[0].passes == best * size * kernel**2
