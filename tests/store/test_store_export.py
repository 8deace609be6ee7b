from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store_records import ARCH, SHA, blocks_ns, fresh, record

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store import export
from hwnas_sdk.store.export import COLUMNS, export_csv, export_parquet
from hwnas_sdk.store.sqlite import MeasurementStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with fresh(tmp_path / "store.sqlite") as opened:
        run = opened.start_run("measure", {"n": 3})
        opened.put_architecture("file:ab", space="file", arch='my, "net"\n.onnx', genotype=())
        opened.add(record(run.id, "a", latency_ms=0.1 + 0.2, energy_net_mj=-1.5), blocks_ns(1))
        opened.add(record(run.id, "b", flags=("contended", "steal"), latency_ms=None), blocks_ns(2))
        opened.add(
            record(run.id, "c", arch_id="file:ab", artifact_sha256="", origin="imported",
                   flags=(), n_samples=0),
        )  # fmt: skip
        yield opened


def test_parquet_has_a_row_a_measurement(store: MeasurementStore, tmp_path: Path) -> None:
    path = tmp_path / "out" / "all.parquet"
    assert export_parquet(store, path) == 3
    table = pq.read_table(path)
    assert table.column_names == list(COLUMNS)
    good, bad, imported = table.to_pylist()
    assert good["latency_ms"] == 0.1 + 0.2
    assert (good["arch_id"], good["arch"], good["device"], good["machine"]) == (
        ARCH, "|3-1-0-4-2-3|", "local", "bare",
    )  # fmt: skip
    assert (good["settings"], good["runtime"], good["threads"], good["batch"]) == (
        "quick", "ort", 1, 1,
    )  # fmt: skip
    assert (good["folded"], good["artifact_sha256"], good["run_kind"]) == (False, SHA, "measure")
    assert good["energy_net_mj"] == -1.5
    assert json.loads(good["environment"]) == {"governor": None, "load1": 0.25}
    assert (bad["status"], bad["latency_ms"], bad["flags"]) == (
        "invalid", None, ["contended", "steal"],
    )  # fmt: skip
    assert (imported["origin"], imported["folded"], imported["flags"]) == ("imported", None, [])
    assert table.schema.metadata[b"hwnas_schema_version"] == b"1"


def test_csv_has_the_same_rows(store: MeasurementStore, tmp_path: Path) -> None:
    assert export_csv(store, tmp_path / "all.csv") == 3
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        good, bad, imported = csv.DictReader(file)
    assert list(good) == list(COLUMNS)
    assert float(good["latency_ms"]) == 0.1 + 0.2
    assert (bad["latency_ms"], bad["flags"]) == ("", "contended;steal")
    assert (good["folded"], imported["folded"]) == ("false", "")
    assert imported["arch"] == 'my, "net"\n.onnx'


def test_numbers_carry_their_unit() -> None:
    units = ("_ms", "_mj", "_mib")
    counts = {"attempt", "threads", "batch", "n_samples"}
    for name, kind in COLUMNS.items():
        if kind == "float":
            assert name.endswith(units), name
        elif kind == "int":
            assert name in counts, name


def test_an_empty_store_gives_an_empty_table(tmp_path: Path) -> None:
    with MeasurementStore.open(tmp_path / "store.sqlite") as store:
        assert export_parquet(store, tmp_path / "all.parquet") == 0
        assert export_csv(store, tmp_path / "all.csv") == 0
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 0
    assert (tmp_path / "all.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("write", [export_csv, export_parquet])
def test_rows_are_written_in_batches(
    store: MeasurementStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write
) -> None:
    monkeypatch.setattr(export, "_BATCH_ROWS", 2)
    assert write(store, tmp_path / "out") == 3


@pytest.mark.parametrize("write", [export_csv, export_parquet])
def test_a_failed_export_leaves_the_old_file(
    store: MeasurementStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write
) -> None:
    old = tmp_path / "out"
    old.write_text("old")
    before = sorted(os.listdir(tmp_path))  # noqa: PTH208
    monkeypatch.setattr(export, "COLUMNS", {**COLUMNS, "no_such_column": "text"})
    with pytest.raises(IndexError):
        write(store, old)
    assert old.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == before  # noqa: PTH208


@pytest.mark.parametrize("write", [export_csv, export_parquet])
def test_the_store_is_not_overwritten_by_its_export(
    store: MeasurementStore, tmp_path: Path, write
) -> None:
    (tmp_path / "link").symlink_to(store.path)
    for path in (store.path, tmp_path / "link", tmp_path):
        with pytest.raises(DataError) as caught:
            write(store, path)
        assert caught.value.code == "cannot_open"
    assert store.check() == []
