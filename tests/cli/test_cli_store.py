"""`hwnas store` and `hwnas runs` on a real store, sound, missing, damaged, locked and newer."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.core.types import Artifact, DeviceSpec, Measurement
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.sqlite import MeasurementStore

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A store with one finished and one unfinished run, three measurements in the first."""
    path = tmp_path / "store.sqlite"
    settings = settings_preset("quick")
    space = get_space("nasbench201")
    with MeasurementStore.open(path) as store:
        store.put_device(
            DeviceSpec(
                id="pi@12345678",
                name="pi",
                uri="local:",
                family="x86",
                soc="a processor",
                cores=4,
                memory_mib=4096,
                machine="bare",
            )
        )
        store.put_settings(settings)
        run = store.start_run("measure", {"what": "three networks", "seed": 3})
        for i, arch in enumerate(space.sample(3, seed=0)):
            sha256 = f"{i:064x}"
            store.put_architecture(
                arch.id, space=arch.space, arch=space.encode(arch), genotype=arch.genotype
            )
            store.put_artifact(
                Artifact(
                    sha256=sha256,
                    format="onnx",
                    arch_id=arch.id,
                    folded=False,
                    producer="test",
                    size_bytes=1,
                    path="net.onnx",
                )
            )
            measurement = Measurement(
                arch_id=arch.id,
                artifact_sha256=sha256,
                device_id="pi@12345678",
                settings_id=settings.id,
                origin="measured",
                latency_ms=1.5 + i,
                n_samples=3,
                flags=("governor_not_pinned",),
                measured_at="2025-01-02T03:04:05+00:00",
                run_id=run.id,
                item=arch.id,
            )
            assert store.add(measurement, [np.array([1, 2, 3], dtype=np.int64)])
        store.finish_run(run.id, {"done": True})
        store.start_run("loop", {"what": "later"})
    return path


def _json(capsys: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == exit_code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_info(db: Path, capsys: Capture) -> None:
    info = _json(capsys, "store", "info", "--db", str(db))
    assert info["path"] == str(db)
    assert info["size_bytes"] > 0
    assert main(["store", "info", "--db", str(db)]) == 0
    assert str(db) in capsys.readouterr().out


def test_a_sound_store_has_no_problems(db: Path, capsys: Capture) -> None:
    answer = _json(capsys, "store", "check", "--db", str(db))
    assert answer["ok"] is True
    assert answer["problems"] == []
    assert main(["store", "check", "--db", str(db)]) == 0
    assert "no problems" in capsys.readouterr().out


def test_damage_is_found_and_named(db: Path, capsys: Capture) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("DROP TRIGGER samples_are_never_changed")
        connection.execute("UPDATE samples SET data = x'00'")
    connection.close()
    answer = _json(capsys, "store", "check", "--db", str(db), exit_code=6)
    assert answer["ok"] is False
    assert len(answer["problems"]) >= 3
    assert main(["store", "check", "--db", str(db)]) == 6
    assert "problem: " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["info"], ["check"], ["export", "OUT.csv"]])
def test_looking_into_a_store_never_writes_it(
    arguments: list[str], db: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = db.read_bytes()
    chosen = [a.replace("OUT", str(tmp_path / "out")) for a in arguments]
    assert main(["store", *chosen, "--db", str(db)]) == 0
    assert db.read_bytes() == before


def test_export_parquet(db: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "all.parquet"
    answer = _json(capsys, "store", "export", str(out), "--db", str(db))
    assert answer == {"path": str(out), "format": "parquet", "rows": 3}
    table = pq.read_table(out).to_pylist()
    assert sorted(row["latency_ms"] for row in table) == [1.5, 2.5, 3.5]
    assert {row["origin"] for row in table} == {"measured"}
    assert {row["machine"] for row in table} == {"bare"}


def test_export_csv_by_option(db: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "all.txt"
    answer = _json(capsys, "store", "export", str(out), "--format", "csv", "--db", str(db))
    assert answer["rows"] == 3
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    assert "latency_ms" in rows[0]


def test_an_unknown_format_writes_nothing(db: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "all.xlsx"
    assert main(["store", "export", str(out), "--db", str(db)]) == 3
    assert "--format" in capsys.readouterr().err
    assert not out.exists()


def test_an_export_that_cannot_be_written(db: Path, capsys: Capture) -> None:
    assert main(["store", "export", "/proc/nowhere/all.csv", "--db", str(db)]) == 6
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "/proc/nowhere" in captured.err


def test_runs(db: Path, capsys: Capture) -> None:
    rows = _json(capsys, "runs", "list", "--db", str(db))["runs"]
    assert [row["kind"] for row in rows] == ["loop", "measure"]
    assert [row["n_measurements"] for row in rows] == [0, 3]
    assert rows[0]["finished_at"] is None
    assert rows[1]["finished_at"] is not None
    assert rows[1]["seed"] == 3
    newest = _json(capsys, "runs", "list", "--limit", "1", "--db", str(db))["runs"]
    assert [row["id"] for row in newest] == [rows[0]["id"]]
    loops = _json(capsys, "runs", "list", "--kind", "measure", "--db", str(db))["runs"]
    assert [row["id"] for row in loops] == [rows[1]["id"]]
    assert main(["runs", "list", "--db", str(db)]) == 0
    assert "not yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["store", "info"], ["store", "check"], ["store", "export", "x.csv"], ["runs", "list"]],
)
def test_no_store_says_what_makes_one(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    missing = tmp_path / "none.sqlite"
    assert main([*arguments, "--db", str(missing)]) == 6
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "quickstart" in err
    assert not missing.exists()


def test_a_newer_store_is_left_alone(db: Path, capsys: Capture) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("PRAGMA user_version = 9999")
        tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_schema")]
        name = next(table for table in tables if "migration" in table)
        columns = [r[1] for r in connection.execute(f"PRAGMA table_info({name})")]
        values = connection.execute(f"SELECT * FROM {name} LIMIT 1").fetchone()
        row = dict(zip(columns, values, strict=True))
        key = next(column for column, value in row.items() if isinstance(value, int))
        row[key] = 9999
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO {name} VALUES ({marks})", list(row.values()))
    connection.close()
    answer = _json(capsys, "store", "info", "--db", str(db), exit_code=6)
    assert answer["error"]["code"] == "schema_too_new"


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_what_is_no_store_is_one_line(content: bytes, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    assert main(["store", "info", "--db", str(path)]) == 6
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert path.read_bytes() == content
