"""Each kind of problem `check` must find, made by a vandal with SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_records import blocks_ns, record, registered

from hwnas_sdk.core.events import Event
from hwnas_sdk.store.sqlite import MeasurementStore

NO_GUARD = [
    "DROP TRIGGER measurement_is_never_changed",
    "DROP TRIGGER samples_are_never_changed",
    "DROP TRIGGER samples_are_never_deleted",
    "DROP TRIGGER run_is_written_once",
]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "store.sqlite"
    with registered(path) as store:
        run = store.start_run("measure", {})
        for item in ("a", "b"):
            store.add(record(run.id, item), blocks_ns(1))
        store.put_job("j", run_id=run.id, device_id="x86-1", payload={})
        store.put_model({"name": "n", "kind": "k"}, weights_sha256="ab" * 32)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)
    return path


def vandalise(path: Path, *statements: str) -> list[str]:
    """Run the statements with guards off and put them back; return what `check` says."""
    with closing(sqlite3.connect(path, isolation_level=None)) as vandal:
        vandal.execute("PRAGMA foreign_keys = OFF")
        vandal.execute("PRAGMA ignore_check_constraints = ON")
        guards = vandal.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for statement in (*NO_GUARD, *statements):
            vandal.execute(statement)
        for (guard,) in guards:
            vandal.execute(guard.replace("CREATE TRIGGER", "CREATE TRIGGER IF NOT EXISTS", 1))
        vandal.execute("PRAGMA writable_schema = ON")
        vandal.executemany(
            "UPDATE sqlite_master SET sql = ? WHERE sql = ?",
            [
                (g, g.replace("CREATE TRIGGER", "CREATE TRIGGER IF NOT EXISTS", 1))
                for (g,) in guards
            ],
        )
    with MeasurementStore.open(path) as store:
        return store.check()


def test_a_sound_store_has_no_problems(path: Path) -> None:
    assert vandalise(path) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM device", "measurement row 1 points to a missing device"),
        ("DELETE FROM samples WHERE measurement_id = 2", "(b): 200 samples are missing"),
        ("UPDATE samples SET data = x'00'", "stored samples cannot be read"),
        ("UPDATE samples SET data = substr(data, 1, 100)", "stored samples cannot be read"),
        ("UPDATE samples SET block_lengths = '[100,99]'", "1600 bytes for 199 samples"),
        ("UPDATE samples SET block_lengths = '[201,-1]'", "stored samples cannot be read"),
        ("UPDATE samples SET block_lengths = '[\"x\"]'", "cannot be read"),
        ("UPDATE samples SET encoding = 'pickle'", "unknown encoding 'pickle'"),
        ("UPDATE measurement SET n_samples = 7", "200 samples are stored, n_samples says 7"),
        ("UPDATE measurement SET status = 'invalid'", "status is invalid, its flags say valid"),
        ("UPDATE measurement SET flags = '[\"later\"]'", "unknown flag 'later'"),
        ("UPDATE measurement SET details = '{'", "cannot be read"),
        ("UPDATE measurement SET origin = 'guessed'", "CHECK constraint failed"),
        ("UPDATE run SET plan = '{\"n\":1}'", "the plan does not match its hash"),
        ("UPDATE run SET result = '{'", "plan or result is not JSON"),
        ("UPDATE run SET finished_at = 'now'", "job j is open but its run"),
        ("UPDATE settings SET content = '{}'", "the content does not match the id"),
        ("UPDATE settings SET content = '{'", "the content does not match the id"),
        ("UPDATE architecture SET genotype = '[1'", "genotype is not JSON"),
        ("UPDATE device SET details = '{1'", "details is not JSON"),
        ("UPDATE job SET payload = '{1'", "payload is not JSON"),
        ("UPDATE model SET card = '{1'", "card is not JSON"),
        ("UPDATE device SET soc = CAST(x'ff' AS TEXT)", "cannot be read"),
        ("DROP INDEX measurement_done", "schema: index measurement_done is missing"),
        ("CREATE TABLE extra (x)", "schema: table extra does not belong here"),
        ("ALTER TABLE device ADD COLUMN x TEXT", "schema: table device was altered"),
    ],
)
def test_each_kind_of_damage_is_found(path: Path, statement: str, says: str) -> None:
    problems = vandalise(path, statement)
    assert any(says in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_missing_guard_is_found(path: Path) -> None:
    with closing(sqlite3.connect(path)) as vandal:
        vandal.execute("DROP TRIGGER measurement_is_never_deleted")
    with MeasurementStore.open(path) as store:
        assert store.check() == ["schema: trigger measurement_is_never_deleted is missing"]


def test_checking_reports_its_progress(path: Path) -> None:
    heard: list[Event] = []
    with MeasurementStore.open(path) as store:
        store.check(on_event=heard.append)
    assert [(event.done, event.total) for event in heard] == [(1, 2), (2, 2)]
