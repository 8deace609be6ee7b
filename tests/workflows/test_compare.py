"""One board before and after an update, two boards, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.types import Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.store.sqlite import Run
from hwnas_sdk.workflows.changes import RunFacts, changes_between
from hwnas_sdk.workflows.compare import compare, write_comparison
from hwnas_sdk.workflows.lab import Lab

BOARD = "fake://?mode=ok"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def described(board: DeviceSession, **device: Any) -> None:
    """Let the board say other things of itself from now on, as after an update."""
    details = dict(board.spec.details)
    board.spec = replace(
        board.spec,
        runtimes={"ort": device.pop("ort", "1.30.0")},
        details={**details, "device": {**details.get("device", {}), **device}},
    )


def updated(lab: Lab) -> None:
    """Profile a board, update its system, profile it again."""
    before = lab.device(f"{BOARD}&seed=1&work={lab.cache.root}/old")
    described(before, os="Debian 12", kernel="6.6.31", firmware="2024-04")
    lab.profile(before)
    after = lab.device(f"{BOARD}&seed=2&work={lab.cache.root}/new")
    described(after, os="Debian 13", kernel="6.12.20", firmware="2024-04", ort="1.31.1")
    lab.profile(after)


@pytest.mark.slow
def test_one_board_before_and_after_an_update(lab: Lab, tmp_path: Path) -> None:
    updated(lab)
    found = compare(lab.store, "fake")
    changed = {row.what: (row.before, row.after) for row in found.changed}
    assert changed["operating system"] == ("Debian 12", "Debian 13")
    assert changed["kernel"] == ("6.6.31", "6.12.20")
    assert changed["installed runtimes"] == ("ort 1.30.0", "ort 1.31.1")
    assert "firmware" not in changed
    assert "governor" not in changed
    assert "power mode" in found.not_recorded
    assert "kernel" not in found.not_recorded
    assert found.first.run.created_at < found.second.run.created_at
    assert len(found.pairs) == 11  # ten references, one of them folded as well
    page = write_comparison(found, tmp_path / "page.html").read_text(encoding="utf-8")
    section = page[page.index("What changed between the runs") :]
    assert section.index("Debian 12") < section.index("Debian 13")
    assert "Neither run recorded:" in section


def test_the_newest_two_profiles_are_taken(lab: Lab) -> None:
    updated(lab)
    third = lab.profile(lab.device(f"{BOARD}&seed=2&work={lab.cache.root}/new"))
    found = compare(lab.store, "fake")
    assert found.second.run.id in third.source
    assert found.worst_regression_pct == 0.0
    assert "kernel" not in {row.what for row in found.changed}


@pytest.mark.slow
def test_a_board_set_up_anew_is_still_the_same_name(lab: Lab) -> None:
    """A fresh card has another machine-id; a person compares what they call by one name."""
    board = lab.device(BOARD)
    lab.profile(board)
    board.spec = replace(board.spec, id="fake@00000000")
    lab.profile(board)
    found = compare(lab.store, "fake")
    changed = {row.what: row.after for row in found.changed}
    assert changed["board identity"] == "00000000"
    assert "device" not in changed


def test_different_reference_sets_are_refused(lab: Lab) -> None:
    board = lab.device(BOARD)
    lab.profile(board, references="ours")
    lab.profile(board, references="both")
    with pytest.raises(DataError) as caught:
        compare(lab.store, "fake")
    assert caught.value.code == "other_references"
    assert "ours-10 and ours-10+paper-10" in caught.value.message


def test_one_profile_is_not_enough(lab: Lab) -> None:
    lab.store.put_device(lab.device(BOARD).spec)
    with pytest.raises(DataError, match="no profile") as none:
        compare(lab.store, "fake", "fake")
    assert none.value.code == "no_profile"
    lab.profile(lab.device(BOARD))
    with pytest.raises(DataError, match="one profile") as one:
        compare(lab.store, "fake")
    assert "before and after" in (one.value.hint or "")
    with pytest.raises(DataError) as unknown:
        compare(lab.store, "pi5")
    assert unknown.value.code == "unknown_device"


@pytest.mark.slow
def test_two_boards_by_name(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("old-board", 1), ("new-board", 2)):
        lab.inventory.add(name, f"{BOARD}&seed={seed}&work={tmp_path / name}")
        lab.profile(lab.device(name))
    lab.close()
    page = tmp_path / "page.html"
    assert main(["compare", "old-board", "new-board", "--json", "-q", "-o", str(page)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"][0] == {"what": "device", "before": "old-board", "after": "new-board"}
    assert len(answer["pairs"]) == 11
    assert answer["first_device"].startswith("old-board@")
    assert answer["report"] == str(page)
    assert "hwnas compare" in page.read_text(encoding="utf-8")
    assert main(["compare", "old-board", "new-board"]) == 0
    shown = capsys.readouterr().out
    assert "what changed between the runs" in shown
    assert "median change" in shown


def facts(run: str, *environments: Mapping[str, Any], **settings: Any) -> RunFacts:
    """A run with made-up records."""
    from hwnas_sdk.core.types import DeviceSpec

    spec = DeviceSpec(
        id="pi4@12345678", name="pi4", uri="ssh://pi4", family="raspberry_pi", soc="BCM2711",
        cores=4, memory_mib=3800, machine="bare",
    )  # fmt: skip
    measurements = [
        Measurement(
            arch_id="a", artifact_sha256="", device_id=spec.id, settings_id="s", origin="measured",
            latency_ms=1.0, environment=environment, run_id=run,
        )
        for environment in environments
    ]  # fmt: skip
    plan = {"sdk_version": "0.2.0", "settings": {"name": "quick", **settings}}
    return RunFacts(
        Run(
            id=run, kind="measure", plan=plan, plan_hash="0" * 64, seed=0,
            created_at="2026-01-01T00:00:00",
            finished_at=None, result=None, resumed=False,
        ),
        spec,
        measurements,
    )  # fmt: skip


def test_temperatures_are_ranges_and_small_moves_are_none() -> None:
    cool = facts("a", {"temperature_c": 41.0, "end": {"temperature_c": 55.2}})
    same = facts("b", {"temperature_c": 41.6, "end": {"temperature_c": 55.0}})
    warm = facts("c", {"temperature_c": 42.0}, {"temperature_c": 71.0})
    blind = facts("d", {"temperature_c": None})
    assert changes_between(cool, same)[0] == []
    (change,) = changes_between(cool, warm)[0]
    assert (change.before, change.after) == ("41 to 55 °C", "42 to 71 °C")
    (change,) = changes_between(cool, blind)[0]
    assert (change.what, change.after) == ("temperature", None)
    assert "temperature" in changes_between(blind, blind)[1]


def test_an_update_in_the_middle_of_a_run_shows_both() -> None:
    mixed = facts("a", {"board": {"kernel": "6.6"}}, {"board": {"kernel": "6.12"}})
    after = facts("b", {"board": {"kernel": "6.12"}})
    change = next(row for row in changes_between(mixed, after)[0] if row.what == "kernel")
    assert (change.before, change.after) == ("6.6 + 6.12", "6.12")


def test_records_of_an_older_version_lack_the_board() -> None:
    """They are not filled in from what the board is today."""
    old = facts("a", {"options": {"runtime": "ort", "ort_version": "1.30.0"}})
    new = facts(
        "b",
        {
            "options": {"runtime": "ort", "runtime_version": "1.31.1"},
            "board": {"os": "Debian 13", "jetpack": "6.2", "l4t": "36.4.3"},
            "conditions": {"power_mode": "MAXN", "fan_pwm": [255]},
        },
        threads=2,
    )
    changed = {row.what: (row.before, row.after) for row in changes_between(old, new)[0]}
    assert changed == {
        "operating system": (None, "Debian 13"),
        "runtime": ("ort 1.30.0", "ort 1.31.1"),
        "firmware": (None, "36.4.3"),
        "power mode": (None, "MAXN"),
        "board: jetpack": (None, "6.2"),
        "settings: threads": (None, "2"),
    }
