from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.export.tuning_database import TunedLayer, TuningDatabase
from hwnas_sdk.export.tvm_target import make_target

LAYER = TunedLayer(
    key="00ff",
    name="conv2d",
    shape="1x3x8x8 * 4x3x3x3",
    trials=16,
    before_us=90.0,
    after_us=3.0,
    seconds=8.0,
    tuned_at="2026-11-21T10:00:00+00:00",
)


def database(root: Path, version: str = "1") -> TuningDatabase:
    return TuningDatabase(root, make_target("aarch64", mcpu="cortex-a72"), version)


def keep(found: TuningDatabase, layer: TunedLayer = LAYER) -> None:
    scratch = found.scratch()
    scratch.mkdir()
    (scratch / "database_workload.json").write_text("[]")
    found.keep(scratch, layer)


def test_a_kept_layer_is_there_for_everybody(tmp_path: Path) -> None:
    found = database(tmp_path)
    assert found.id == "empty"
    with found.tuning():
        keep(found)
    again = database(tmp_path)
    assert again.layers() == [LAYER]
    assert [folder.name for folder in again.folders] == ["00ff"]
    assert again.id == found.id != "empty"


def test_another_target_or_version_finds_none(tmp_path: Path) -> None:
    found = database(tmp_path)
    with found.tuning():
        keep(found)
    assert database(tmp_path, version="2").folders == []
    assert TuningDatabase(tmp_path, make_target("aarch64"), "1").folders == []


def test_the_identity_changes_with_every_layer_and_every_result(tmp_path: Path) -> None:
    found = database(tmp_path)
    seen = {found.id}
    with found.tuning():
        keep(found)
        seen.add(found.id)
        keep(found, replace(LAYER, key="aa01"))
        seen.add(found.id)
        keep(found, replace(LAYER, after_us=2.5))  # tuned again, better
        seen.add(found.id)
    assert len(seen) == 4
    assert len(found.folders) == 2


def test_what_a_killed_run_left_does_not_count_and_is_swept(tmp_path: Path) -> None:
    found = database(tmp_path)
    with found.tuning():
        half = found.scratch()
        half.mkdir()
        (half / "database_workload.json").write_text("[")
    assert found.folders == []
    with found.tuning():
        assert not half.exists()


def test_two_runs_for_one_target_would_measure_each_other(tmp_path: Path) -> None:
    with database(tmp_path).tuning():
        with pytest.raises(DataError) as caught, database(tmp_path).tuning():
            pytest.fail("two runs at once")
        assert caught.value.code == "tuning_busy"
        assert caught.value.retryable
    with database(tmp_path).tuning():
        pass


def test_a_damaged_description_is_left_out(tmp_path: Path) -> None:
    found = database(tmp_path)
    with found.tuning():
        keep(found)
        keep(found, replace(LAYER, key="aa01"))
    (found.folder / "layers" / "00ff" / "layer.json").write_text("{")
    assert [layer.key for layer in found.layers()] == ["aa01"]


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "tuning").write_text("a file")
    with pytest.raises(DataError) as caught, database(tmp_path / "tuning").tuning():
        pytest.fail("locked nothing")
    assert caught.value.code == "not_writable"
