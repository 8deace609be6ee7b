"""Reports of runs with energy as a third objective."""

from __future__ import annotations

from dataclasses import replace

from report_builders import make_candidate, make_report, make_round

from hwnas_sdk.core.types import VerifiedCandidate
from hwnas_sdk.report._front import more_objectives, picks, verified_front
from hwnas_sdk.report.data import ReportData, RoundData
from hwnas_sdk.report.html import render_report


def candidate(index: int, error: float, ms: float, mj: float) -> VerifiedCandidate:
    return make_candidate(index, error, ms, measured_ms=ms, energy_mj=mj)


def judged_by_energy(round_data: RoundData) -> RoundData:
    verdict = replace(
        round_data.verdict,
        objectives=("error", "latency", "energy"),
        energy_spearman=0.973,
        energy_mape_pct=4.2,
    )
    return replace(round_data, verdict=verdict)


def two_rounds() -> ReportData:
    first = (candidate(1, 9.0, 5.0, 3.0), candidate(2, 12.0, 2.0, 2.0), candidate(3, 8.0, 9.0, 9.0))
    second = (candidate(4, 9.5, 5.5, 1.0), candidate(5, 9.5, 5.5, 4.0), candidate(6, 9.0, 5.0, 3.0))
    rounds = (make_round(first), make_round(second, "Round 2"))
    return make_report(rounds=tuple(judged_by_energy(r) for r in rounds))


def test_the_front_of_several_rounds_counts_every_objective_they_had() -> None:
    data = two_rounds()
    assert more_objectives(data) == ("energy",)
    # 4 is slower and worse than 1 but needs least energy; 5 is beaten; 6 equals 1.
    assert [m.anchor for m in verified_front(data)] == ["c1-2", "c1-1", "c2-1", "c1-3"]
    plain = replace(data, rounds=(data.rounds[0], make_round(data.rounds[1].verdict.candidates)))
    assert more_objectives(plain) == ()
    assert [m.anchor for m in verified_front(plain)] == ["c1-2", "c1-1", "c1-3"]


def test_the_network_of_least_energy_is_recommended() -> None:
    data = two_rounds()
    roles = {pick.role: pick.point.anchor for pick in picks(data)}
    assert roles["Fastest"] == "c1-2"
    assert roles["Least energy"] == "c2-1"
    assert roles["Most accurate"] == "c1-3"


def test_the_page_says_that_energy_counts_and_draws_it() -> None:
    page = render_report(two_rounds())
    assert "between predicted accuracy and measured latency and energy" in page
    assert "Error against energy" in page
    assert "The front also counts energy" in page
    assert "Energy prediction (Round 2): rank correlation 0.973, 4.2 % off on average" in page
    plain = render_report(make_report(rounds=(make_round((make_candidate(1, 9.0, 5.0),)),)))
    assert "Error against energy" not in plain
