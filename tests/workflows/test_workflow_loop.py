"""The closed loop over a replayed table and over a board that dies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DataError, DeviceError, MeasurementError
from hwnas_sdk.core.events import Event
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.loop import LoopPlan, union_hypervolume
from hwnas_sdk.workflows.search import SearchPlan


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def plan_for(session: DeviceSession, **changes: object) -> LoopPlan:
    search = SearchPlan(candidates=8, generations=5, population=40, seed=1)
    fields = {
        "device": session.spec.name,
        "device_id": session.spec.id,
        "search": search,
        "settings": settings_preset("quick"),
        "rounds": 2,
        **changes,
    }
    return LoopPlan(**fields)  # type: ignore[arg-type]


@pytest.fixture
def replay(lab: Lab, shared_data: Path) -> DeviceSession:
    return lab.device(f"replay://{shared_data / 'nasbench201_latency.parquet'}#gold_6226")


def test_two_rounds_on_a_replayed_device(lab: Lab, replay: DeviceSession, tmp_path: Path) -> None:
    result = lab.loop(plan_for(replay, folded=False), on=replay)
    assert [verdict.round for verdict in result.verdicts] == [1, 2]
    assert len(result.profile.architectures) == 10
    first, second = result.verdicts
    assert len(first.candidates) == 8
    measured = [row.arch for verdict in result.verdicts for row in verdict.candidates]
    assert len(set(measured)) == len(measured)
    assert first.hypervolume_reference == second.hypervolume_reference
    assert first.spearman is not None
    assert first.spearman > 0.5
    union = union_hypervolume(result.verdicts)
    assert union >= max(first.hypervolume_measured, second.hypervolume_measured)
    text = lab.report(result, tmp_path / "page.html").read_text()
    HTMLParser().feed(text)
    assert first.candidates[0].arch in text
    assert "imported" in text


def test_a_round_says_how_many_were_measured() -> None:
    events: list[Event] = []
    with Lab.open(on_event=events.append) as lab:
        board = lab.device("fake://?mode=crash_item=1")
        (verdict,) = lab.loop(plan_for(board, rounds=1), on=board).verdicts
    (said,) = (event.message for event in events if event.task == "round")
    assert verdict.n_measured < len(verdict.candidates)
    assert said.startswith(f"round 1: {verdict.n_measured} of {len(verdict.candidates)} measured")


@pytest.mark.slow
def test_the_same_plan_gives_the_same_fronts(lab: Lab, replay: DeviceSession) -> None:
    one = lab.loop(plan_for(replay, folded=False, rounds=1), on=replay)
    two = lab.loop(plan_for(replay, folded=False, rounds=1), on=replay)
    assert one.run.id != two.run.id
    assert [c.arch for c in one.fronts[0].candidates] == [c.arch for c in two.fronts[0].candidates]


@pytest.mark.slow
def test_a_prior_written_anew_meanwhile_is_that_of_the_next_loop(
    lab: Lab, replay: DeviceSession, tmp_path: Path
) -> None:
    shipped, path = LatencyPrior.shipped(), tmp_path / "prior.safetensors"
    narrow = replace(shipped, deviations=shipped.deviations[:1], log_noises=shipped.log_noises[:1])
    shipped.save(path, data={})
    plan = plan_for(replay, folded=False)
    plan = replace(plan, search=replace(plan.search, prior=path))
    expected = [front.candidates for front in lab.loop(plan, on=replay).fronts]

    def rewrite(event: Event) -> None:
        if event.task == "search round 1":
            narrow.save(path, data={})

    lab.on_event = rewrite
    again = replace(plan, gain_eps=-1.0)  # a run of its own
    assert [front.candidates for front in lab.loop(again, on=replay).fronts] == expected
    other = replace(plan, gain_eps=-2.0)
    assert [front.candidates for front in lab.loop(other, on=replay).fronts] != expected


@pytest.mark.slow
def test_a_loop_continues_with_the_front_it_had_chosen(lab: Lab) -> None:
    dying = lab.device("fake://?mode=die_once=120&seed=2")
    plan = plan_for(dying)
    with pytest.raises(DeviceError):
        lab.loop(plan, on=dying)
    run = lab.store.runs("loop")[-1]
    before = {(m.item, m.attempt): m.latency_ms for m in lab.store.measurements(run_id=run.id)}
    assert before
    lab._sessions.clear()
    again = lab.device("fake://?mode=die_once=120&seed=2")
    result = lab.loop(plan, on=again)
    assert result.run.resumed
    after = {
        (m.item, m.attempt): m.latency_ms for m in lab.store.measurements(run_id=result.run.id)
    }
    assert before.items() <= after.items()
    assert len({item for item, _ in after}) == len(after) == 11 + 2 * 8  # one folded pair
    with pytest.raises(DataError, match="round"):
        lab.report(lab.store.runs("round")[-1].id, Path("never.html"))


def test_board_time_stops_the_loop(lab: Lab, replay: DeviceSession) -> None:
    board = lab.device("fake://?mode=ok")
    with pytest.raises(MeasurementError) as caught:
        lab.loop(plan_for(board, board_s=1e-9), on=board)
    assert caught.value.code == "no_board_time"


@pytest.mark.slow
def test_a_loop_that_finds_nothing_new_keeps_what_it_verified(
    lab: Lab, replay: DeviceSession, tmp_path: Path
) -> None:
    search = SearchPlan(candidates=8, generations=5, population=40, seed=1, max_latency_ms=3.9)
    plan = plan_for(replay, search=search, folded=False, rounds=9)
    result = lab.loop(plan, on=replay)
    assert result.stopped == "nothing new"
    assert 1 <= len(result.verdicts) < 9
    assert lab.report(result, tmp_path / "page.html").is_file()


@pytest.mark.slow
def test_board_time_counts_what_killed_processes_spent(lab: Lab) -> None:
    dying = lab.device("fake://?mode=die_once=120&seed=2")
    plan = plan_for(dying, board_s=1000.0)
    with pytest.raises(DeviceError):
        lab.loop(plan, on=dying)
    lab._sessions.clear()
    result = lab.loop(plan, on=lab.device("fake://?mode=die_once=120&seed=2"))
    assert result.board.earlier_s > 0.0
    assert result.board.total_s == pytest.approx(result.board.earlier_s + result.board.wall_s)
