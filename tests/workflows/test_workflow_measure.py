"""Measuring through the real store and the real wire; only the board's numbers are made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DataError, DeviceError, MeasurementError, SpaceError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.measure import MAX_ATTEMPTS

CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def test_results_come_in_the_order_asked_and_are_stored(lab: Lab) -> None:
    archs = get_space("nasbench201").sample(11, seed=4)  # more than one job
    board = lab.device("fake://?mode=ok")
    results = lab.measure(archs, on=board)
    assert [m.arch_id for m in results] == [arch.id for arch in archs]
    assert {m.status for m in results} == {"valid"}
    assert {m.origin for m in results} == {"simulated"}
    assert all(m.details["sentinel_ms"] for m in results)
    stored = lab.store.measurements(run_id=results[0].run_id)
    assert len(stored) == len(archs)
    assert sum(len(block) for block in lab.store.samples_ns(stored[0])) == stored[0].n_samples > 0
    assert lab.store.open_jobs(run_id=results[0].run_id) == []


def test_a_finished_call_measures_again_when_repeated(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    first = lab.measure([CELL], on=board)[0]
    second = lab.measure([CELL], on=board)[0]
    assert first.run_id != second.run_id


def test_one_network_twice_is_measured_once(lab: Lab) -> None:
    results = lab.measure([CELL, CELL], on=lab.device("fake://?mode=ok"))
    assert len(results) == 1


def test_an_interrupted_call_continues(lab: Lab) -> None:
    """The board dies in the second job; a new board process finishes the same run."""
    archs = get_space("nasbench201").sample(20, seed=5)
    with pytest.raises(DeviceError):
        lab.measure(archs, on=lab.device("fake://?mode=die_once=90"))
    runs = lab.store.runs("measure")
    kept = {(m.item, m.attempt): m.latency_ms for m in lab.store.measurements(run_id=runs[-1].id)}
    assert runs[-1].finished_at is None
    assert 0 < len(kept) < len(archs)
    lab._sessions.clear()
    board = lab.device("fake://?mode=die_once=90")
    results = lab.measure(archs, on=board)
    assert {m.run_id for m in results} == {runs[-1].id}
    after = {(m.item, m.attempt): m.latency_ms for m in lab.store.measurements(run_id=runs[-1].id)}
    assert len(results) == len(archs)
    assert kept.items() <= after.items()
    assert len({item for item, _ in after}) == len(after)


def test_invalid_records_are_taken_again_then_kept(lab: Lab) -> None:
    results = lab.measure([CELL], on=lab.device("fake://?mode=contended"))
    assert results[0].status == "invalid"
    assert "contended" in results[0].flags
    stored = lab.store.measurements(run_id=results[0].run_id)
    assert [m.attempt for m in stored] == list(range(1, MAX_ATTEMPTS + 1))
    assert lab.store.done_items(results[0].run_id) == {}


def test_one_bad_network_does_not_stop_the_others(lab: Lab) -> None:
    archs = get_space("nasbench201").sample(3, seed=6)
    results = lab.measure(archs, on=lab.device("fake://?mode=crash_item=1"))
    assert sorted(m.status for m in results) == ["invalid", "valid", "valid"]
    bad = next(m for m in results if m.status == "invalid")
    assert bad.details["error_code"]


def test_dead_cells_are_refused_before_the_board_is_asked(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    with pytest.raises(SpaceError, match="dead cell"):
        lab.measure([DEAD], on=board, folded=True)
    assert lab.measure([DEAD], on=board)[0].status == "valid"


def test_a_replayed_table_answers_without_files(lab: Lab, shared_data: Path) -> None:
    board = lab.device(f"replay://{shared_data / 'nasbench201_latency.parquet'}#raspi4")
    result = lab.measure([CELL], on=board)[0]
    assert (result.origin, result.artifact_sha256, result.n_samples) == ("imported", "", 0)
    assert result.latency_ms is not None
    assert "summary_only" in result.flags


def test_profile_is_stored_and_found(lab: Lab, tmp_path: Path) -> None:
    from hwnas_sdk.workflows.profile_file import load_profile, save_profile

    board = lab.device("fake://?mode=ok")
    with pytest.raises(DataError, match="no profile"):
        lab.stored_profile(board.spec.id)
    profile = lab.profile(board, references="both", settings=settings_preset("quick"))
    assert len(set(profile.architectures)) == len(profile.latency_ms) >= 19
    assert lab.stored_profile(board.spec.id)[1] == profile
    save_profile(profile, tmp_path / "fake.ort.yaml")
    assert load_profile(tmp_path / "fake.ort.yaml") == profile


def test_a_noisy_profile_can_be_taken_again(lab: Lab) -> None:
    """Every attempt of the first run is used up; the same command must start anew."""
    board = lab.device("fake://?mode=contended")
    for _ in range(2):
        with pytest.raises(MeasurementError) as caught:
            lab.profile(board)
        assert caught.value.code == "profile_incomplete"
    runs = lab.store.runs("profile")
    assert len({run.id for run in runs}) == 2
    assert all(lab.store.measurements(run_id=run.id) for run in runs)


@pytest.mark.slow
def test_a_front_is_verified_on_its_own_device_only(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    lab.profile(board)
    front = lab.search(get_space("nasbench201"), on=board, candidates=3, seed=1)
    assert front.folded
    with pytest.raises(DataError) as caught:
        lab.verify(front, on=lab.device("local"))
    assert caught.value.code == "other_device"


def test_a_profile_says_what_an_empty_edge_costs(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    lab.profile(board)
    run, profile = lab.stored_profile(board.spec.id)
    forms = [item.rpartition("/")[2] for item in lab.store.done_items(run.id)]
    assert sorted(set(forms)) == ["folded", "unfolded"]
    assert len(profile.architectures) == 10
