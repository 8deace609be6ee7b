"""Which networks the page recommends, and how numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_builders import make_candidate, make_report, make_round

from hwnas_sdk.report._front import (
    knee,
    measured_candidates,
    picks,
    staircase,
    verified_front,
)
from hwnas_sdk.report._text import (
    decimals_for,
    half_width,
    milliseconds,
    number,
    short_name,
    signed_pct,
)

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30)


@given(POINTS)
def test_staircase_is_the_front(points: list[tuple[int, int]]) -> None:
    floats = [(float(x), float(y)) for x, y in points]
    kept = [floats[i] for i in staircase(floats)]
    assert kept == sorted(kept)
    for p in floats:
        assert any(k[0] <= p[0] and k[1] <= p[1] for k in kept), "every point is covered"
    for k in kept:
        assert not any(p != k and p[0] <= k[0] and p[1] <= k[1] for p in floats)


def test_knee_is_the_bend() -> None:
    values = [(1.0, 20.0), (2.0, 10.0), (5.0, 9.0), (10.0, 8.0)]
    rows = tuple(
        make_candidate(i, error, ms, measured_ms=ms) for i, (ms, error) in enumerate(values)
    )
    front = verified_front(make_report(rounds=(make_round(rows),)))
    bend = knee(front)
    assert bend is not None
    assert bend.measured_ms == 2.0
    assert knee(front[:2]) is None


def test_a_straight_or_bulging_front_has_no_knee() -> None:
    rows = tuple(
        make_candidate(i, error, ms, measured_ms=ms)
        for i, (ms, error) in enumerate([(1.0, 10.0), (2.0, 9.9), (3.0, 1.0)])
    )
    data = make_report(rounds=(make_round(rows),))
    assert [pick.role for pick in picks(data)] == ["Fastest", "Most accurate"]


def test_front_over_rounds_drops_what_a_later_round_beat() -> None:
    first = make_round((make_candidate(1, 9.0, 3.0, measured_ms=5.0),))
    second = make_round((make_candidate(2, 8.0, 3.0, measured_ms=4.0),), "Round 2")
    front = verified_front(make_report(rounds=(first, second)))
    assert [m.measured_ms for m in front] == [4.0]


def test_a_network_of_two_rounds_counts_once_with_its_latest_latency() -> None:
    first = make_round((make_candidate(5, 9.0, 3.0, measured_ms=4.0),))
    second = make_round((make_candidate(5, 9.0, 3.0, measured_ms=3.5),), "Round 2")
    found = measured_candidates(make_report(rounds=(first, second)))
    assert [(m.measured_ms, m.anchor) for m in found] == [(3.5, "c2-1")]


@pytest.mark.parametrize(
    ("value", "ci95", "text"),
    [
        (12.3456, 0.081, "12.35 ± 0.08 ms"),
        (0.0012345, 0.00001, "0.00123 ± 0.00001 ms"),
        (123.4, None, "123.40 ms"),
        (5.0, 0.0001, "5.00 ± <0.01 ms"),
    ],
)
def test_milliseconds(value: float, ci95: float | None, text: str) -> None:
    assert milliseconds(value, ci95) == text


def test_missing_numbers() -> None:
    assert number(None, 2) == number(float("nan"), 2) == signed_pct(None) == "\u2013"
    assert not half_width(None, 2)
    assert decimals_for([None, float("inf"), 0.0]) == 2
    assert signed_pct(-3.14) == "\u22123.1 %"


def test_short_name() -> None:
    long = "x" * 80
    assert short_name("#77") == "#77"
    assert len(short_name(long)) < 40
