"""One row a measurement, for other tools: Parquet and CSV. Units are in the column names.

Invalid rows are exported, too, with their flags and status; origin and machine stand in each row.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store import queries
from hwnas_sdk.store.faults import os_error_of, sync_folder
from hwnas_sdk.store.sqlite import MeasurementStore

# column -> type; the order of the file
COLUMNS: Final[Mapping[str, str]] = {
    "run_id": "text",
    "run_kind": "text",
    "item": "text",
    "attempt": "int",
    "status": "text",
    "flags": "texts",
    "origin": "text",
    "device_id": "text",
    "device": "text",
    "family": "text",
    "soc": "text",
    "machine": "text",
    "arch_id": "text",
    "space": "text",
    "arch": "text",
    "artifact_sha256": "text",
    "artifact_format": "text",
    "folded": "bool",
    "settings_id": "text",
    "settings": "text",
    "runtime": "text",
    "threads": "int",
    "batch": "int",
    "latency_ms": "float",
    "latency_p90_ms": "float",
    "latency_iqr_ms": "float",
    "ci95_ms": "float",
    "first_ms": "float",
    "load_ms": "float",
    "energy_mj": "float",
    "energy_net_mj": "float",
    "energy_reason": "text",
    "peak_memory_mib": "float",
    "n_samples": "int",
    "measured_at": "text",
    "environment": "text",
    "details": "text",
}
_BATCH_ROWS: Final = 5000


def export_parquet(store: MeasurementStore, path: Path) -> int:
    """Write all measurements to a Parquet file, replacing it at once; return how many.

    Flags are a list of text, what was not measured is null, environment and details are JSON.
    Raises: DataError no_space, store_read_only, cannot_open, and those of the store.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
    }
    schema = pa.schema(
        [(name, types[kind]) for name, kind in COLUMNS.items()],
        metadata={"hwnas_schema_version": str(store.info()["schema_version"])},
    )
    n = 0
    with (
        _replacing(store, path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
        closing(_batches(store)) as batches,
    ):
        for batch in batches:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            n += len(batch)
    return n


def export_csv(store: MeasurementStore, path: Path) -> int:
    """Write all measurements to a CSV file (UTF-8, header), replacing it at once; return how many.

    Flags are joined by ";", what was not measured is empty. Raises as `export_parquet`.
    """
    n = 0
    with _replacing(store, path) as binary, closing(_batches(store)) as batches:
        text = _Encoded(binary)
        writer = csv.DictWriter(text, fieldnames=list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        for batch in batches:
            for row in batch:
                folded = "" if row["folded"] is None else str(row["folded"]).lower()
                writer.writerow({**row, "flags": ";".join(row["flags"]), "folded": folded})
            n += len(batch)
    return n


class _Encoded:
    """The little of a text file that the csv module needs; leaves closing to the owner."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _batches(store: MeasurementStore) -> Generator[list[dict[str, Any]], None, None]:
    """All measurements in the order they were stored, as one consistent view."""
    with store.reading() as connection:
        batch: list[dict[str, Any]] = []
        for row in queries.joined_rows(connection):
            batch.append(_exported(row))
            if len(batch) == _BATCH_ROWS:
                yield batch
                batch = []
        if batch:
            yield batch


def _exported(row: sqlite3.Row) -> dict[str, Any]:
    values = {name: row[name] for name in COLUMNS}
    values["flags"] = json.loads(values["flags"])
    values["folded"] = None if values["folded"] is None else bool(values["folded"])
    return values


@contextmanager
def _replacing(store: MeasurementStore, path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once it is whole and on the disk."""
    if path.exists() and path.samefile(store.path):
        raise DataError(f"{path} is the store itself", code="cannot_open", hint="name another file")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        error = os_error_of(exc, path)
        if error.code == "store_read_only":
            error = DataError(error.message, code="not_writable", hint="name another file")
        raise error from exc
