"""Profiles whose networks are chosen while measuring, on a replayed table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import ConfigError, DeviceError, MeasurementError
from hwnas_sdk.devices.drivers.replay import ReplaySession
from hwnas_sdk.predictors.active import N_START
from hwnas_sdk.predictors.references import REFERENCE_SETS
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows.active_profile import ActivePlan
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.profile_file import load_profile, save_profile

SPACE = NasBench201()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two devices: one with 1 % of scatter, one with 30 %; 'holes' lacks two of the start."""
    cells = SPACE.all_genotypes()
    costs = np.array([0.0, 0.3, 1.0, 3.0, 0.8])
    latency_ms = 2.0 + costs[cells].sum(axis=1)
    scatter = np.random.default_rng(0).normal(size=len(cells))
    arch = [SPACE.encode(SPACE.architecture(cell)) for cell in cells]
    lacking = set(REFERENCE_SETS["ours-10"][1:3])
    quiet = latency_ms * np.exp(0.01 * scatter)
    holes = [None if a in lacking else v for a, v in zip(arch, quiet.tolist(), strict=True)]
    noisy = latency_ms * np.exp(0.3 * scatter)
    path = tmp_path_factory.mktemp("active") / "table.parquet"
    none = [None] * len(arch)
    columns = {"arch": arch, "quiet": quiet, "noisy": noisy, "holes": holes,
               "nothing": pa.array(none, pa.float64())}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def test_it_stops_when_precise_enough_and_a_search_works_from_it(
    lab: Lab, table: Path, tmp_path: Path
) -> None:
    board = lab.device(f"replay://{table}#quiet")
    profile = lab.profile(board, active=ActivePlan(precision_pct=15.0, max_networks=18))
    assert profile.reference_set == "active"
    assert profile.architectures[:N_START] == REFERENCE_SETS["ours-10"][:N_START]
    assert len(set(profile.architectures)) == len(profile.latency_ms)
    assert profile.selection["stopped"] == "precision"
    assert profile.selection["reached_pct"] <= 15.0
    assert profile.selection["n_networks"] == len(profile.architectures) < 18
    assert lab.stored_profile(board.spec.id)[1] == profile
    save_profile(profile, tmp_path / "active.yaml")
    assert load_profile(tmp_path / "active.yaml") == profile
    front = lab.search(get_space("nasbench201"), on=board, method="random", candidates=4)
    assert len(front.candidates) == 4


def test_a_spent_budget_is_said(lab: Lab, table: Path) -> None:
    board = lab.device(f"replay://{table}#noisy")
    profile = lab.profile(board, active=ActivePlan(precision_pct=0.5, max_networks=8))
    assert profile.selection["stopped"] == "max_networks"
    assert len(profile.architectures) == 8
    assert profile.selection["reached_pct"] > 0.5
    assert profile.selection["noise_pct"] <= profile.selection["reached_pct"] * 1.001


def test_killed_anywhere_it_measures_the_same_networks(
    lab: Lab, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board goes away before each job after the first in turn; nothing is measured twice."""
    plan = ActivePlan(precision_pct=0.5, max_networks=9)
    board = lab.device(f"replay://{table}#quiet")
    whole = lab.profile(board, active=plan, seed=1)
    measure = ReplaySession.measure
    allowed = 1

    def unreliable(self, job, **options):  # type: ignore[no-untyped-def]
        nonlocal allowed
        if allowed == 0:
            allowed = 1
            raise DeviceError("gone", device_id="x")
        allowed -= 1
        return measure(self, job, **options)

    monkeypatch.setattr(ReplaySession, "measure", unreliable)
    n_failures = 0
    while True:
        try:
            pieces = lab.profile(board, active=plan, seed=2)
            break
        except DeviceError:
            n_failures += 1
            assert n_failures < 10
    assert n_failures == 9 - N_START
    assert pieces.architectures == whole.architectures
    run, _ = lab.stored_profile(board.spec.id)
    stored = lab.store.measurements(run_id=run.id)
    assert len(stored) == len({m.item for m in stored}) == 9


def test_what_cannot_be_measured_is_missing_and_not_chosen_again(lab: Lab, table: Path) -> None:
    board = lab.device(f"replay://{table}#holes")
    profile = lab.profile(board, active=ActivePlan(precision_pct=0.5, max_networks=9))
    assert set(profile.missing) == set(REFERENCE_SETS["ours-10"][1:3])
    assert len(profile.architectures) == 7


def test_a_device_that_measures_nothing_fails_at_once(lab: Lab, table: Path) -> None:
    board = lab.device(f"replay://{table}#nothing")
    with pytest.raises(MeasurementError) as caught:
        lab.profile(board, active=ActivePlan())
    assert caught.value.code == "profile_incomplete"
    run = lab.store.runs("profile")[-1]
    assert len({m.item for m in lab.store.measurements(run_id=run.id)}) == N_START


@pytest.mark.parametrize("wrong", [{"precision_pct": 0.0}, {"max_networks": N_START - 1}])
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ActivePlan(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_real_machine_gets_an_active_profile(lab: Lab) -> None:
    board = lab.device("local:")
    try:
        profile = lab.profile(board, active=ActivePlan(precision_pct=0.5, max_networks=8))
    except MeasurementError as exc:
        pytest.skip(f"this machine is too busy to measure on: {exc}")
    assert profile.origin == "measured"
    assert 5 <= len(profile.architectures) <= 8
    run, _ = lab.stored_profile(board.spec.id)
    assert any(item.endswith("/folded") for item in lab.store.done_items(run.id))
