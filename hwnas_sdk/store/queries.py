"""The questions asked of the store, as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.types import DeviceSpec, Measurement
from hwnas_sdk.store.rows import Run, device_of, measurement_of, run_of

TABLES: Final = (
    "architecture",
    "artifact",
    "device",
    "settings",
    "run",
    "job",
    "measurement",
    "samples",
    "model",
)

_JOINED: Final = """
SELECT m.*, a.space, a.arch, a.genotype, f.format AS artifact_format, f.folded,
  d.name AS device, d.family, d.soc, d.machine, r.kind AS run_kind, s.name AS settings,
  json_extract(s.content, '$.runtime') AS runtime, json_extract(s.content, '$.threads') AS threads,
  json_extract(s.content, '$.batch') AS batch
FROM measurement m
JOIN architecture a ON a.id = m.arch_id
JOIN device d ON d.id = m.device_id
JOIN settings s ON s.id = m.settings_id
JOIN run r ON r.id = m.run_id
LEFT JOIN artifact f ON f.sha256 = m.artifact_sha256
"""


def select_measurements(
    connection: sqlite3.Connection, *, status: str | None = None, **equal: str | None
) -> list[Measurement]:
    """Measurements whose columns equal what is not None, in the order they were stored."""
    where, values = _where({"status": status, **equal})
    rows = connection.execute(f"SELECT * FROM measurement {where} ORDER BY id", values)  # noqa: S608 (column names are ours)
    return [measurement_of(row) for row in rows]


def joined_rows(connection: sqlite3.Connection, **equal: str | None) -> Iterator[sqlite3.Row]:
    """Measurements with the text of their architecture, device, settings, run and artifact."""
    where, values = _where({f"m.{name}": value for name, value in equal.items()})
    yield from connection.execute(f"{_JOINED} {where} ORDER BY m.id", values)


def find_run(connection: sqlite3.Connection, reference: str, *, kind: str | None = None) -> Run:
    """Run of an id, a unique prefix of one, or "last".

    Raises: DataError unknown_run, ambiguous_run.
    """
    rows = connection.execute(
        "SELECT * FROM run WHERE (:ref = 'last' OR substr(id, 1, length(:ref)) = :ref)"
        " AND (:kind IS NULL OR kind = :kind) ORDER BY seq DESC LIMIT 3",
        {"ref": reference, "kind": kind},
    ).fetchall()
    if not rows or not reference:
        what = f"no run {reference!r}" if reference != "last" else "no run yet"
        of_kind = f" of kind {kind}" if kind else ""
        raise DataError(
            f"there is {what}{of_kind} in the store",
            code="unknown_run",
            hint="'hwnas runs list' lists them",
        )
    if reference != "last" and len(rows) > 1 and rows[0]["id"] != reference:
        raise DataError(
            f"several runs begin with {reference!r}: {', '.join(row['id'] for row in rows)}",
            code="ambiguous_run",
            hint="give more digits",
        )
    return run_of(rows[0])


def find_device(connection: sqlite3.Connection, device_id: str) -> DeviceSpec:
    """Device of an id.

    Raises: DataError unknown_device.
    """
    row = connection.execute("SELECT * FROM device WHERE id = ?", (device_id,)).fetchone()
    if row is None:
        raise DataError(
            f"the store knows no device {device_id!r}",
            code="unknown_device",
            hint="measure something on it first; 'hwnas store info' lists the devices",
        )
    return device_of(row)


def counts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Rows per table, measurements per origin, and per device."""
    tables = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 (fixed names)
        for table in TABLES
    }
    origins = connection.execute(
        "SELECT origin, count(*) FROM measurement GROUP BY origin ORDER BY origin"
    )
    devices = connection.execute(
        "SELECT d.id, d.name, d.machine, count(m.id) AS n_measurements,"
        " coalesce(sum(m.status = 'valid'), 0) AS n_valid"
        " FROM device d LEFT JOIN measurement m ON m.device_id = d.id"
        " GROUP BY d.id ORDER BY d.name, d.id"
    )
    return {
        "counts": tables,
        "origins": {row[0]: row[1] for row in origins},
        "devices": [dict(row) for row in devices],
        "n_unfinished_runs": connection.execute(
            "SELECT count(*) FROM run WHERE finished_at IS NULL"
        ).fetchone()[0],
    }


def _where(equal: dict[str, str | None]) -> tuple[str, list[str]]:
    given = {name: value for name, value in equal.items() if value is not None}
    clause = " AND ".join(f"{name} = ?" for name in given)
    return (f"WHERE {clause}" if clause else ""), list(given.values())
