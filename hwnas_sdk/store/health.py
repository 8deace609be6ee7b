"""Reads every row of a store and says what is wrong with it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event, EventSink
from hwnas_sdk.core.ids import content_id, sha256_bytes
from hwnas_sdk.store.migrate import Migration
from hwnas_sdk.store.rows import measurement_of
from hwnas_sdk.store.samples import decode_samples

_EVENT_EVERY: Final = 200
_JSON: Final = {
    "architecture": ("genotype",),
    "artifact": ("input_shapes",),
    "device": ("runtimes", "details"),
    "job": ("payload",),
    "model": ("card",),
}


def check(
    connection: sqlite3.Connection, migrations: tuple[Migration, ...], *, on_event: EventSink
) -> list[str]:
    """One line a problem, none when the store is sound.

    Looks at SQLite's own integrity, foreign keys, the schema, every JSON text, every status, every
    hash and every sample.
    """
    problems: list[str] = []
    steps = (
        _integrity,
        _schema(migrations),
        _json_texts,
        _runs,
        _settings,
        _measurements(on_event),
    )
    connection.execute("BEGIN")  # one consistent view beside a running writer
    try:
        for step in steps:
            try:
                problems.extend(step(connection))
            except sqlite3.DatabaseError as exc:
                problems.append(f"cannot be read: {exc}")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return list(dict.fromkeys(problems))


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check(50)"):
        if line != "ok":
            yield f"integrity: {' '.join(line.split())}"
    for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table} row {rowid} points to a missing {parent}"


def _schema(migrations: tuple[Migration, ...]) -> Any:
    def step(connection: sqlite3.Connection) -> Iterator[str]:
        with closing(sqlite3.connect(":memory:")) as reference:
            for migration in migrations:
                reference.executescript(migration.sql)
            expected, found = _objects(reference), _objects(connection)
        for name in sorted(expected.keys() - found.keys()):
            yield f"schema: {name} is missing"
        for name in sorted(found.keys() - expected.keys()):
            yield f"schema: {name} does not belong here"
        for name in sorted(expected.keys() & found.keys()):
            if expected[name] != found[name]:
                yield f"schema: {name} was altered"

    return step


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT type || ' ' || name, sql FROM sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_'"
    )
    return {row[0]: row[1] for row in rows}


def _json_texts(connection: sqlite3.Connection) -> Iterator[str]:
    for table, columns in _JSON.items():
        for row in connection.execute(f"SELECT rowid AS number, * FROM {table}"):  # noqa: S608 (fixed names)
            for column in columns:
                if not _is_json(row[column]):
                    yield f"{table} row {row['number']}: {column} is not JSON"


def _runs(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT * FROM run"):
        if sha256_bytes(row["plan"].encode()) != row["plan_hash"]:
            yield f"run {row['id']}: the plan does not match its hash"
        if not _is_json(row["plan"]) or not _is_json(row["result"] or "null"):
            yield f"run {row['id']}: plan or result is not JSON"
    for row in connection.execute(
        "SELECT j.id, r.id AS run_id FROM job j JOIN run r ON r.id = j.run_id"
        " WHERE r.finished_at IS NOT NULL"
    ):
        yield f"job {row['id']} is open but its run {row['run_id']} is finished"


def _settings(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT * FROM settings"):
        if (
            not _is_json(row["content"])
            or content_id(json.loads(row["content"]), length=16) != row["id"]
        ):
            yield f"settings {row['id']}: the content does not match the id"


def _measurements(on_event: EventSink) -> Any:
    def step(connection: sqlite3.Connection) -> Iterator[str]:
        total = connection.execute("SELECT count(*) FROM measurement").fetchone()[0]
        rows = connection.execute(
            "SELECT m.*, s.encoding, s.block_lengths, s.data FROM measurement m"
            " LEFT JOIN samples s ON s.measurement_id = m.id ORDER BY m.id"
        )
        for i, row in enumerate(rows):
            for problem in _measurement(row):
                yield f"measurement {row['id']} ({row['item']}): {problem}"
            if i % _EVENT_EVERY == 0 or i == total - 1:
                on_event(Event("check store", i + 1, total))

    return step


def _measurement(row: sqlite3.Row) -> Iterator[str]:
    try:
        measurement = measurement_of(row)
        if measurement.status != row["status"]:
            yield f"status is {row['status']}, its flags say {measurement.status}"
        if row["data"] is None:
            if (
                measurement.n_samples
                and measurement.origin == "measured"
                and "summary_only" not in measurement.flags
            ):
                yield f"{measurement.n_samples} samples are missing"
            return
        blocks = decode_samples(row["encoding"], json.loads(row["block_lengths"]), row["data"])
        if (n := sum(len(block) for block in blocks)) != measurement.n_samples:
            yield f"{n} samples are stored, n_samples says {measurement.n_samples}"
    except (ValueError, TypeError) as exc:
        yield f"cannot be read: {exc}"
    except DataError as exc:
        yield exc.message


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
