"""Upgrades. `golden_v1` writes a store of schema 1 with SQL of its own, so that it stays what
schema 1 was however the code changes; every later migration must carry its rows over."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.migrate import APPLICATION_ID, Migration, load_migrations, shipped_migrations
from hwnas_sdk.store.samples import encode_samples
from hwnas_sdk.store.sqlite import MeasurementStore

# A released migration never changes. Add a line for each new one.
RELEASED = {1: "c27c6a098d237a8e78bcaa54867e3af485d5b3170b559ac1d6c32a76a9294f92"}

SETTINGS_ID = "0123456789abcdef"
BLOCKS = [np.array([1_000_000, 1_200_000]), np.array([1_100_000])]


def golden_v1(path: Path) -> None:
    """Write a store as schema 1 had it: a valid and an invalid measurement, an open job."""
    first = shipped_migrations()[0]
    lengths, data = encode_samples(BLOCKS)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(first.sql)
        db.execute(f"PRAGMA user_version = {first.version}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        rows = {
            "schema_migration": [(1, first.name, first.sha256, "2026-01-01T00:00:00+00:00")],
            "architecture": [("nasbench201:0-1", "nasbench201", "|a|", "[0,1]")],
            "artifact": [("ab" * 32, "onnx", "nasbench201:0-1", 0, "p", 9, "a.onnx", "{}")],
            "device": [("d", "local", "l:", "x86", "cpu", 2, 99, "bare", "{}", None, None, "{}")],
            "settings": [(SETTINGS_ID, "quick", '{"name":"quick","threads":1}')],
            "run": [(1, "r1", "measure", "{}", "cd" * 32, 5, "2026-01-01", None, None)],
            "job": [(1, "j1", "r1", "d", '{"job":{}}', "2026-01-01")],
            "model": [(1, "m1", "latency", "bayes", '{"name":"latency"}', "ef" * 32, None, "x")],
        }  # fmt: skip
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
        for number, (attempt, status, flags) in enumerate(
            [(1, "invalid", ["contended"]), (2, "valid", ["virtualised"])], start=1
        ):
            row = {
                "id": number, "run_id": "r1", "item": "a", "attempt": attempt,
                "arch_id": "nasbench201:0-1", "artifact_sha256": "ab" * 32, "device_id": "d",
                "settings_id": SETTINGS_ID, "origin": "measured", "status": status,
                "latency_ms": 1.1, "n_samples": 3, "flags": json.dumps(flags),
                "environment": '{"load1":0.5}', "details": "{}", "measured_at": "2026-01-01",
            }  # fmt: skip
            columns, marks = ", ".join(row), ", ".join("?" * len(row))
            db.execute(f"INSERT INTO measurement ({columns}) VALUES ({marks})", list(row.values()))
            db.execute(
                "INSERT INTO samples VALUES (?, ?, ?, ?)",
                (number, "i64le-planes-zlib", json.dumps(lengths), data),
            )
        db.commit()


def refused(code: str) -> pytest.RaisesExc:
    return pytest.RaisesExc(DataError, check=lambda exc: exc.code == code and bool(exc.hint))


def next_version(sql: str, version: int = 2) -> tuple[Migration, ...]:
    return (*shipped_migrations()[: version - 1], Migration(version, f"{version:04d}_next", sql))


def assert_golden(store: MeasurementStore) -> None:
    """The rows of `golden_v1`, read through today's code."""
    failed, good = store.measurements()
    assert (failed.status, good.status) == ("invalid", "valid")
    assert (good.latency_ms, good.flags, good.environment) == (
        1.1,
        ("virtualised",),
        {"load1": 0.5},
    )
    assert store.done_items("r1") == {"a": good}
    for measurement in (failed, good):
        assert [b.tolist() for b in store.samples_ns(measurement)] == [b.tolist() for b in BLOCKS]
    assert store.open_jobs(run_id="r1") == [("j1", {"job": {}})]
    assert store.devices()[0].name == "local"
    assert store.settings(SETTINGS_ID).name == "quick"
    assert store.models()[0].card == {"name": "latency"}
    run = store.get_run("last")
    assert (run.id, run.seed, run.finished_at) == ("r1", 5, None)


def test_released_migrations_never_change() -> None:
    shipped = {migration.version: migration.sha256 for migration in shipped_migrations()}
    assert shipped == RELEASED


def test_a_store_of_schema_1_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    golden_v1(path)
    with MeasurementStore.open(path) as store:
        assert_golden(store)
        assert store.info()["schema_version"] == len(shipped_migrations())
    with MeasurementStore.open(path, read_only=True) as store:
        assert_golden(store)


def test_the_next_migration_rebuilds_a_table_and_keeps_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    golden_v1(path)
    migrations = next_version(
        """
        -- Columns of a referenced table change by the twelve steps of SQLite's manual.
        CREATE TABLE device_new (
          id TEXT PRIMARY KEY, name TEXT NOT NULL, uri TEXT NOT NULL, family TEXT NOT NULL,
          soc TEXT NOT NULL, cores INTEGER NOT NULL, memory_mib INTEGER NOT NULL,
          machine TEXT NOT NULL, runtimes TEXT NOT NULL, power_source TEXT, power_reason TEXT,
          details TEXT NOT NULL, shelf TEXT
        ) STRICT;
        INSERT INTO device_new SELECT *, 'left; right' FROM device;
        DROP TABLE device;
        ALTER TABLE device_new RENAME TO device;
        CREATE TRIGGER two_statements BEFORE DELETE ON device BEGIN
          SELECT 1; SELECT RAISE(ABORT, 'devices are kept');
        END;
        """
    )
    with MeasurementStore.open(path, migrations=migrations) as store:
        assert_golden(store)
        assert store.info()["schema_version"] == 2
        assert not [p for p in store.check() if not p.startswith(("run r1", "settings"))]
        with store.reading() as connection:
            assert connection.execute("SELECT shelf FROM device").fetchone()[0] == "left; right"
            assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    with refused("schema_too_new"):
        MeasurementStore.open(path)
    with refused("schema_too_new"):
        MeasurementStore.open(path, read_only=True)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("CREATE TABLE extra (x); CREATE TABLE extra (x);", "store"),
        ("CREATE TABLE extra (x); DELETE FROM device;", "upgrade_failed"),
        ("CREATE TABLE extra (x); DELETE FROM measurement;", "constraint"),
    ],
)
def test_a_failing_upgrade_changes_nothing(tmp_path: Path, sql: str, code: str) -> None:
    path = tmp_path / "store.sqlite"
    golden_v1(path)
    before = path.read_bytes()
    with pytest.RaisesExc(DataError, check=lambda exc: exc.code == code):
        MeasurementStore.open(path, migrations=next_version(sql))
    assert path.read_bytes() == before
    with MeasurementStore.open(path) as store:
        assert_golden(store)


def test_a_changed_old_migration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    golden_v1(path)
    first = shipped_migrations()[0]
    altered = Migration(1, first.name, first.sql + "-- harmless\n")
    for migrations in ((altered,), (altered, Migration(2, "0002_next", "CREATE TABLE x (y);"))):
        with refused("migration_changed"):
            MeasurementStore.open(path, migrations=migrations)
    with MeasurementStore.open(path) as store:
        assert_golden(store)


def test_an_old_store_is_not_upgraded_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    golden_v1(path)
    before = path.read_bytes()
    with refused("schema_too_old"):
        MeasurementStore.open(
            path, read_only=True, migrations=next_version("CREATE TABLE extra (x);")
        )
    assert path.read_bytes() == before


def test_migrations_are_numbered_without_a_gap(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0003_c.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(AssertionError):
        load_migrations(tmp_path)
    (tmp_path / "0003_c.sql").rename(tmp_path / "0002_c.sql")
    (tmp_path / "README").touch()
    assert [m.name for m in load_migrations(tmp_path)] == ["0001_a", "0002_c"]


def test_line_ends_do_not_change_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_bytes(b"SELECT 1;\nSELECT 2;\n")
    (unix,) = load_migrations(tmp_path)
    (tmp_path / "0001_a.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    assert load_migrations(tmp_path) == (unix,)


def test_a_migration_must_end_its_last_statement() -> None:
    with pytest.raises(ValueError, match="ends inside a statement"):
        list(Migration(1, "0001_a", "SELECT 1;\n-- fine\nSELECT 2").statements())
    good = Migration(1, "0001_a", "SELECT 1; SELECT 'a;b';\n-- so; far\nSELECT 3;\n-- end\n")
    assert len(list(good.statements())) == 3
