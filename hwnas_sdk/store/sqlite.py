"""The measurement store: one SQLite file, safe against kill -9, power loss and a second process.

What is done is derived from what is stored and kept nowhere else: an item of a run is done when
its valid measurement is there. Measurements and samples are append-only.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Artifact, DeviceSpec, Measurement
from hwnas_sdk.store import health, queries, writes
from hwnas_sdk.store.connection import BUSY_TIMEOUT_S, open_connection, write_transaction
from hwnas_sdk.store.faults import os_error_of, translated
from hwnas_sdk.store.migrate import Migration, shipped_migrations
from hwnas_sdk.store.rows import (
    ModelRecord,
    Run,
    device_of,
    device_row,
    measurement_row,
    model_of,
    run_of,
    settings_of,
    to_json,
)
from hwnas_sdk.store.samples import decode_samples, encode_samples
from hwnas_sdk.store.writes import Upsert

__all__ = ["MeasurementStore", "ModelRecord", "Run"]


class MeasurementStore:
    """An open store; make one with `MeasurementStore.open`, and close it.

    Several threads may share one, and several processes may have the same file open: each write is
    one short transaction that waits its turn. All methods raise DataError; codes are listed at
    `hwnas_sdk.store.faults.error_of`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        read_only: bool,
        migrations: tuple[Migration, ...],
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._connection: sqlite3.Connection | None = connection
        self._migrations = migrations
        self._lock = threading.RLock()

    # --- life -------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        read_only: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        migrations: tuple[Migration, ...] | None = None,
    ) -> Self:
        """Open the store at `path`; create it, its folder, or upgrade it when it may be written.

        Args:
            path: the file.
            read_only: never write; needs an existing store of the current schema.
            busy_timeout_s: how long to wait for another process's write.
            migrations: the schema; None is the shipped one.
        """
        path = Path(path)
        chosen = shipped_migrations() if migrations is None else migrations
        try:
            path = path.resolve()  # the log lies beside the real file
            connection = open_connection(
                path, read_only=read_only, busy_timeout_s=busy_timeout_s, migrations=chosen
            )
        except OSError as exc:
            raise os_error_of(exc, path) from exc
        return cls(connection, path, read_only=read_only, migrations=chosen)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self._lock, translated(self.path):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for queries; SQLite's errors come out as DataError."""
        with self._lock, translated(self.path):
            if self._connection is None:
                raise DataError(f"store {self.path} is closed", code="store_closed")
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self.reading() as connection:
            if self.read_only:
                raise DataError(f"store {self.path} is open read-only", code="store_read_only")
            with write_transaction(connection):
                yield connection

    # --- what is measured, where and how ----------------------------------------------------------

    def put_architecture(
        self, arch_id: str, *, space: str, arch: str, genotype: Sequence[int]
    ) -> None:
        """Register an architecture, or a user's file (space "file", empty genotype).

        A file keeps the name it was last seen under. Raises: DataError `conflict`.
        """
        genes = to_json([int(gene) for gene in genotype], what=f"genotype of {arch_id}")
        row = {"id": arch_id, "space": space, "arch": arch, "genotype": genes}
        may_change = ("arch",) if space == "file" else ()
        self._put(Upsert("architecture", row, may_change=may_change))

    def put_artifact(self, artifact: Artifact) -> None:
        """Register a deployable file by its hash; its architecture must be registered.

        The same bytes may come from another architecture or path: the first owner stays, the path
        follows.
        """
        shapes = {name: list(shape) for name, shape in artifact.input_shapes.items()}
        row = {
            "sha256": artifact.sha256,
            "format": artifact.format,
            "arch_id": artifact.arch_id,
            "folded": int(artifact.folded),
            "producer": artifact.producer,
            "size_bytes": artifact.size_bytes,
            "path": artifact.path,
            "input_shapes": to_json(shapes, what=f"input shapes of {artifact.sha256}"),
        }
        first = ("arch_id", "folded", "producer")
        self._put(Upsert("artifact", row, key="sha256", may_change=("path",), may_differ=first))

    def put_device(self, spec: DeviceSpec) -> None:
        """Register a device, or bring its description up to date.

        Raises: DataError `conflict` when an emulated device with measurements claims to be real.
        """
        row = device_row(spec)
        self._put(Upsert("device", row, may_change=tuple(row)))

    def put_settings(self, settings: MeasureSettings) -> None:
        """Register a way of measuring."""
        content = to_json(settings.to_json(), what="settings")
        row = {"id": settings.id, "name": settings.name, "content": content}
        self._put(Upsert("settings", row))

    def _put(self, upsert: Upsert) -> None:
        """Insert or update; reading first keeps repeats free of disk writes."""
        with self.reading() as connection:
            if upsert.changes(connection) == set():
                return
        with self._writing() as connection:
            upsert.apply(connection)

    def devices(self) -> list[DeviceSpec]:
        """All devices by name."""
        with self.reading() as connection:
            rows = connection.execute("SELECT * FROM device ORDER BY name, id").fetchall()
        return [device_of(row) for row in rows]

    def device(self, device_id: str) -> DeviceSpec:
        """One device. Raises: DataError `unknown_device`."""
        with self.reading() as connection:
            return queries.find_device(connection, device_id)

    def architecture_text(self, arch_id: str) -> str | None:
        """Official string or file name of an architecture; None when it is not registered."""
        row = self._first("SELECT arch FROM architecture WHERE id = ?", arch_id)
        return None if row is None else str(row["arch"])

    def settings(self, settings_id: str) -> MeasureSettings:
        """One way of measuring. Raises: DataError `unknown_settings`."""
        row = self._first("SELECT content FROM settings WHERE id = ?", settings_id)
        if row is None:
            raise DataError(f"the store knows no settings {settings_id!r}", code="unknown_settings")
        return settings_of(row["content"])

    def _first(self, query: str, *values: Any) -> sqlite3.Row | None:
        with self.reading() as connection:
            row: sqlite3.Row | None = connection.execute(query, values).fetchone()
            return row

    # --- runs and board jobs ----------------------------------------------------------------------

    def start_run(self, kind: str, plan: Mapping[str, Any]) -> Run:
        """Return the unfinished run of this very plan (`resumed`), else a new one."""
        with self._writing() as connection:
            return writes.start_run(connection, kind, plan)

    def finish_run(self, run_id: str, result: Mapping[str, Any] | None = None) -> Run:
        """Mark a run finished. Doing so again with the same result changes nothing.

        Raises: DataError unknown_run; conflict when it was finished with another result.
        """
        with self._writing() as connection:
            return writes.finish_run(connection, run_id, result)

    def get_run(self, reference: str, *, kind: str | None = None) -> Run:
        """Run of an id, a unique prefix of one, or "last" (of `kind`).

        Raises: DataError unknown_run, ambiguous_run.
        """
        with self.reading() as connection:
            return queries.find_run(connection, reference, kind=kind)

    def runs(self, kind: str | None = None) -> list[Run]:
        """All runs (of `kind`) in the order they were started; the newest is last."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM run WHERE :kind IS NULL OR kind = :kind ORDER BY seq",
                {"kind": kind},
            ).fetchall()
        return [run_of(row) for row in rows]

    def put_job(
        self, job_id: str, *, run_id: str, device_id: str, payload: Mapping[str, Any]
    ) -> None:
        """Note work about to be handed to a board, so that a killed host can ask for it again."""
        row = {
            "id": job_id,
            "run_id": run_id,
            "device_id": device_id,
            "payload": to_json(dict(payload), what=f"job {job_id}"),
            "created_at": writes.now(),
        }
        self._put(Upsert("job", row, may_differ=("created_at",)))

    def open_jobs(self, *, run_id: str) -> list[tuple[str, dict[str, Any]]]:
        """(job id, payload) of what a run handed out and did not close, oldest first."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT id, payload FROM job WHERE run_id = ? ORDER BY seq", (run_id,)
            ).fetchall()
        return [(row["id"], json.loads(row["payload"])) for row in rows]

    def close_job(self, job_id: str) -> None:
        """Strike a job off, once its results are stored; closing twice is fine."""
        with self._writing() as connection:
            connection.execute("DELETE FROM job WHERE id = ?", (job_id,))

    # --- measurements -----------------------------------------------------------------------------

    def add(self, measurement: Measurement, samples_ns: Sequence[NDArray[np.int64]] = ()) -> bool:
        """Store a measurement and its raw samples, durably, in one transaction.

        Args:
            measurement: architecture, device, settings, run and artifact must be registered.
            samples_ns: one (n,) array a block, nanoseconds; `n_samples` in all. Only a record
                flagged ``summary_only``, or one that was not measured, may come without.

        Returns:
            False, and nothing is stored, when this attempt of the item is there already, or when
            the record is valid and the item has a valid one.

        Raises: DataError bad_measurement, unknown_reference, and those of the file.
        """
        row = measurement_row(measurement)
        block_lengths, data = encode_samples(samples_ns)
        _check_samples(measurement, block_lengths)
        with self._writing() as connection:
            present = connection.execute(
                "SELECT 1 FROM measurement WHERE run_id = :run_id AND item = :item"
                " AND (attempt = :attempt OR (status = 'valid' AND :status = 'valid'))",
                row,
            ).fetchone()
            if present is not None:
                return False
            rowid = writes.insert(connection, "measurement", row)
            if block_lengths:
                writes.insert_samples(connection, rowid, block_lengths, data)
        return True

    def measurements(
        self,
        *,
        run_id: str | None = None,
        device_id: str | None = None,
        arch_id: str | None = None,
        origin: str | None = None,
        valid_only: bool = False,
        settings_id: str | None = None,
        artifact_sha256: str | None = None,
    ) -> list[Measurement]:
        """Measurements that match all filters given, in the order they were stored."""
        with self.reading() as connection:
            return queries.select_measurements(
                connection,
                status="valid" if valid_only else None,
                run_id=run_id,
                device_id=device_id,
                arch_id=arch_id,
                origin=origin,
                settings_id=settings_id,
                artifact_sha256=artifact_sha256,
            )

    def done_items(self, run_id: str) -> dict[str, Measurement]:
        """Valid measurement of each finished item of a run."""
        return {m.item: m for m in self.measurements(run_id=run_id, valid_only=True)}

    def attempts(self, run_id: str, item: str) -> int:
        """Number of the last stored attempt at an item; 0 for none."""
        row = self._first(
            "SELECT coalesce(max(attempt), 0) AS n FROM measurement WHERE run_id = ? AND item = ?",
            run_id,
            item,
        )
        assert row is not None
        return int(row["n"])

    def samples_ns(self, measurement: Measurement) -> list[NDArray[np.int64]]:
        """Raw samples of a stored measurement, one (n,) array a block, nanoseconds.

        Empty when the record has none. Raises: DataError unknown_measurement, store_damaged.
        """
        row = self._first(
            "SELECT s.* FROM measurement m LEFT JOIN samples s ON s.measurement_id = m.id"
            " WHERE m.run_id = ? AND m.item = ? AND m.attempt = ?",
            measurement.run_id,
            measurement.item,
            measurement.attempt,
        )
        if row is None:
            raise DataError(
                f"attempt {measurement.attempt} of {measurement.item!r} is not in the store",
                code="unknown_measurement",
            )
        if row["data"] is None:
            return []
        return decode_samples(row["encoding"], json.loads(row["block_lengths"]), row["data"])

    # --- predictors -------------------------------------------------------------------------------

    def put_model(
        self, card: Mapping[str, Any], *, weights_sha256: str, path: str | None = None
    ) -> str:
        """Register a fitted predictor by its card (with `name` and `kind`); return its id."""
        missing = [name for name in ("name", "kind") if not isinstance(card.get(name), str)]
        if missing:
            raise DataError(f"a model card needs {' and '.join(missing)}", code="bad_card")
        text = to_json(dict(card), what=f"card of {card['name']}")
        row = {
            "id": content_id([text, weights_sha256], length=16),
            "name": card["name"],
            "kind": card["kind"],
            "card": text,
            "weights_sha256": weights_sha256,
            "path": path,
            "created_at": writes.now(),
        }
        self._put(Upsert("model", row, may_change=("path",), may_differ=("created_at",)))
        return str(row["id"])

    def models(self, name: str | None = None) -> list[ModelRecord]:
        """Registered predictors (called `name`); the newest is last."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM model WHERE :name IS NULL OR name = :name ORDER BY seq",
                {"name": name},
            ).fetchall()
        return [model_of(row) for row in rows]

    # --- state ------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Path, size_bytes, schema_version; counts per table, per origin and per device."""
        with self.reading() as connection:
            counted = queries.counts(connection)
        files = [self.path, self.path.with_name(f"{self.path.name}-wal")]
        return {
            "path": str(self.path),
            "size_bytes": sum(file.stat().st_size for file in files if file.exists()),
            "schema_version": len(self._migrations),
            **counted,
        }

    def check(self, *, on_event: EventSink = ignore) -> list[str]:
        """Read everything; return one line a problem, none when the store is sound."""
        with self.reading() as connection:
            return health.check(connection, self._migrations, on_event=on_event)


def _check_samples(measurement: Measurement, block_lengths: Sequence[int]) -> None:
    n = sum(block_lengths)
    what = f"measurement of {measurement.arch_id} on {measurement.device_id}"
    may_lack = measurement.origin != "measured" or "summary_only" in measurement.flags
    if n != measurement.n_samples and (block_lengths or not may_lack):
        raise DataError(
            f"{what} has {n} raw samples but says n_samples = {measurement.n_samples}",
            code="bad_measurement",
            hint="raw samples are kept; flag summary_only where the runner reports none",
        )
