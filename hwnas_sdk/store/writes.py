"""What is written inside a transaction, as functions of the connection."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwnas_sdk.core.clock import SYSTEM_CLOCK
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.store.queries import find_run
from hwnas_sdk.store.rows import Run, run_of, to_json
from hwnas_sdk.store.samples import ENCODING

_REFERENCES: Final = (
    ("run", "id", "run_id"),
    ("architecture", "id", "arch_id"),
    ("artifact", "sha256", "artifact_sha256"),
    ("device", "id", "device_id"),
    ("settings", "id", "settings_id"),
)


@dataclass(frozen=True, slots=True)
class Upsert:
    """A row named by a key, and what a later row of the same key may say otherwise.

    Attributes:
        table, row: where it goes and its column values.
        key: the naming column.
        may_change: columns that follow the newest row.
        may_differ: columns that keep the first row's value, whatever a later one says.
    """

    table: str
    row: Mapping[str, Any]
    key: str = "id"
    may_change: Collection[str] = ()
    may_differ: Collection[str] = ()

    def changes(self, connection: sqlite3.Connection) -> set[str] | None:
        """Columns to update, empty for none; None when the row is to be inserted.

        Raises: DataError `conflict` when another column differs.
        """
        query = f"SELECT * FROM {self.table} WHERE {self.key} = ?"  # noqa: S608 (names are ours)
        stored = connection.execute(query, (self.row[self.key],)).fetchone()
        if stored is None:
            return None
        changed = {name for name, value in self.row.items() if stored[name] != value}
        changed -= set(self.may_differ)
        if wrong := changed - set(self.may_change):
            raise DataError(
                f"{self.table} {self.row[self.key]} is stored with another "
                f"{', '.join(sorted(wrong))}",
                code="conflict",
                hint="an id names one thing for ever; use another id or another store",
            )
        return changed

    def apply(self, connection: sqlite3.Connection) -> None:
        """Insert or update."""
        changed = self.changes(connection)
        if changed is None:
            insert(connection, self.table, self.row)
        elif changed:
            update = ", ".join(f"{name} = :{name}" for name in sorted(changed))
            statement = f"UPDATE {self.table} SET {update} WHERE {self.key} = :{self.key}"  # noqa: S608
            _run(connection, statement, self.row)


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> int:
    """Insert `row`; return its rowid.

    Raises: DataError unknown_reference, conflict, bad_row.
    """
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO {table} ({names}) VALUES ({values})"  # noqa: S608 (names are ours)
    return _run(connection, statement, row).lastrowid or 0


def insert_samples(
    connection: sqlite3.Connection, measurement_id: int, block_lengths: Sequence[int], data: bytes
) -> None:
    """Insert the encoded samples of a measurement."""
    row = {
        "measurement_id": measurement_id,
        "encoding": ENCODING,
        "block_lengths": json.dumps(list(block_lengths)),
        "data": data,
    }
    insert(connection, "samples", row)


def start_run(connection: sqlite3.Connection, kind: str, plan: Mapping[str, Any]) -> Run:
    """Unfinished run of this very plan, else a new one."""
    text = to_json(dict(plan), what=f"plan of a {kind} run")
    seed = plan.get("seed")
    row: dict[str, Any] = {
        "id": uuid.uuid4().hex[:16],
        "kind": kind,
        "plan": text,
        "plan_hash": sha256_bytes(text.encode()),
        "seed": seed if type(seed) is int and abs(seed) < 1 << 63 else None,
        "created_at": now(),
    }
    unfinished = connection.execute(
        "SELECT * FROM run WHERE kind = :kind AND plan_hash = :plan_hash AND finished_at IS NULL",
        row,
    ).fetchone()
    if unfinished is not None:
        return run_of(unfinished, resumed=True)
    insert(connection, "run", row)
    return find_run(connection, row["id"])


def finish_run(
    connection: sqlite3.Connection, run_id: str, result: Mapping[str, Any] | None
) -> Run:
    """Mark a run finished, once.

    Raises: DataError unknown_run; conflict when it was finished with another result.
    """
    text = None if result is None else to_json(dict(result), what=f"result of run {run_id}")
    row = connection.execute("SELECT * FROM run WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise DataError(f"there is no run {run_id!r} in the store", code="unknown_run")
    if row["finished_at"] is None:
        connection.execute(
            "UPDATE run SET finished_at = ?, result = ? WHERE id = ?", (now(), text, run_id)
        )
    elif row["result"] != text:
        raise DataError(f"run {run_id} is finished with another result", code="conflict")
    return find_run(connection, run_id)


def now() -> str:
    """UTC, ISO 8601."""
    return SYSTEM_CLOCK.now().isoformat()


def _run(connection: sqlite3.Connection, statement: str, row: Mapping[str, Any]) -> sqlite3.Cursor:
    """Execute, and say what is wrong with the row when the schema refuses it."""
    try:
        return connection.execute(statement, row)
    except sqlite3.IntegrityError as exc:
        if exc.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
            missing = ", ".join(_missing_references(connection, row)) or "row it refers to"
            raise DataError(
                f"the store has no {missing}", code="unknown_reference", hint="put it first"
            ) from exc
        trigger = exc.sqlite_errorname == "SQLITE_CONSTRAINT_TRIGGER"
        code = "conflict" if trigger else "bad_row"
        raise DataError(f"the store refused a row: {exc}", code=code) from exc
    except (UnicodeEncodeError, OverflowError, sqlite3.ProgrammingError) as exc:
        raise DataError(f"a value cannot be stored: {exc}", code="bad_row") from exc


def _missing_references(connection: sqlite3.Connection, row: Mapping[str, Any]) -> list[str]:
    missing = []
    for table, key, column in _REFERENCES:
        query = f"SELECT 1 FROM {table} WHERE {key} = ?"  # noqa: S608 (fixed names)
        value = row.get(column)
        if value is not None and connection.execute(query, (value,)).fetchone() is None:
            missing.append(f"{table} {value}")
    return missing
