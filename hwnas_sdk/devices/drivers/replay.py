"""``replay:`` devices: a column of a Parquet table answers instead of hardware.

``replay://PATH/TABLE.parquet#COLUMN[?energy=COLUMN][&energy_table=PATH]``

The table has a column `arch` (official strings) and one column of latencies in ms per device. Its
numbers keep the origin "imported": somebody measured them, not we.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.types import DeviceSpec, Origin
from hwnas_sdk.devices.drivers._keeps_nothing import KeepsNothingSession
from hwnas_sdk.devices.jobs import ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.uri import DeviceUri


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One device's numbers: architecture string -> value, only where there is one."""

    table: str
    column: str
    values: dict[str, float]
    fingerprint: str


def read_column(path: Path, column: str) -> TableColumn:
    """Read `column` next to `arch`; empty cells, NaN and values <= 0 are left out.

    Raises: DataError when the table cannot be read, ConfigError when it has no such column.
    """
    # Arrow is the slowest import of this package; only replay devices pay for it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = list(pq.read_schema(path).names)
        columns = _check_column(path, names, column)
        table = pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise DataError(
            f"the table {path} does not exist",
            code="table_missing",
            hint="name the file in the device's URI: replay://PATH/TABLE.parquet#COLUMN",
        ) from None
    except (OSError, pa.ArrowException) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise DataError(f"the table {path} cannot be read: {reason}", code="table_damaged") from exc
    values: dict[str, float] = {}
    try:
        for arch, value in zip(
            table["arch"].to_pylist(), table[column].cast(pa.float64()).to_pylist(), strict=True
        ):
            if value is None or not math.isfinite(value) or value <= 0.0:
                continue
            if values.setdefault(str(arch), value) != value:
                raise DataError(
                    f"{path}: {arch!r} has two values of {column!r}", code="table_damaged"
                )
    except pa.ArrowException as exc:
        raise ConfigError(f"column {column!r} of {path.name} does not hold numbers") from exc
    digest = hashlib.sha256(column.encode())
    for arch in sorted(values):
        digest.update(f"\n{arch}\t{values[arch]!r}".encode())
    return TableColumn(path.name, column, values, digest.hexdigest()[:16])


def _check_column(path: Path, names: list[str], column: str) -> list[str]:
    if "arch" not in names:
        raise ConfigError(f"{path.name} has no column 'arch'", hint="it is not a table of ours")
    known = [name for name in names if name not in {"arch", "index"}]
    if column not in known:
        close = difflib.get_close_matches(column, known, n=3) or known[:20]
        raise ConfigError(
            f"{path.name} has no column {column!r}", hint=f"for example {', '.join(close)}"
        )
    return ["arch", column]


class ReplaySession(KeepsNothingSession):
    """Answers from a table; nothing is pushed, timed or kept."""

    def __init__(
        self,
        latency: TableColumn,
        *,
        name: str,
        uri: str,
        energy: TableColumn | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Serve `latency` (ms) and perhaps `energy` (mJ)."""
        super().__init__(name)
        self.origin: Origin = "imported"
        self.needs_artifacts = False
        self._latency = latency
        self._energy = energy
        self._clock = clock
        details: dict[str, Any] = {
            "table": latency.table,
            "column": latency.column,
            "n_architectures": len(latency.values),
            "fingerprint": latency.fingerprint,
        }
        if energy is not None:
            details["energy_column"] = energy.column
        self.spec = DeviceSpec(
            id=f"{name}@{latency.fingerprint[:8]}",
            name=name,
            uri=uri,
            family="replay",
            soc=latency.column,
            cores=1,
            memory_mib=0,
            machine="bare",
            runtimes={"table": latency.table},
            power_source=None if energy is None else "table",
            power_reason="no_sensor" if energy is None else None,
            details=details,
        )

    def probe(self) -> dict[str, Any]:
        """Describe the table."""
        self._refuse_when_closed()
        return {
            "device": {"family": "replay", "soc": self.spec.soc, "machine": "bare"},
            "environment": {},
            "runtimes": {"table": {"version": self._latency.table}},
            "power": {"source": self.spec.power_source, "reason": self.spec.power_reason},
            "quiet": {},
        }

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Look every item up by its architecture string."""
        self._refuse_when_closed()
        results = []
        for number, entry in enumerate(job.items, start=1):
            results.append(self._look_up(entry, wants_energy=job.settings.energy))
            self._finished("measure", job, entry, number, on_event)
        return JobResult(
            job_id=job.id,
            items=tuple(results),
            environment={
                "table": self._latency.table,
                "column": self._latency.column,
                "fingerprint": self._latency.fingerprint,
                "options": {},
                "measured_at": self._clock.now().isoformat(timespec="milliseconds"),
            },
        )

    def _look_up(self, entry: JobItem, *, wants_energy: bool) -> ItemResult:
        source = self._latency
        latency_ms = source.values.get(entry.arch)
        if latency_ms is None:
            return ItemResult(
                item=entry.item,
                error_code="not_in_table",
                error_message=f"{source.table} has no {source.column} of {entry.arch!r}",
            )
        energy_mj = None if self._energy is None else self._energy.values.get(entry.arch)
        reason = None
        if energy_mj is None and wants_energy:
            reason = "no_sensor" if self._energy is None else "not_in_table"
        return ItemResult(
            item=entry.item,
            summary_latency_ms=latency_ms,
            energy_mj=energy_mj,
            energy_reason=reason,
        )


def open_replay(uri: DeviceUri, *, name: str) -> ReplaySession:
    """Read the table and serve it.

    Raises: ConfigError for a URI without column or with an unknown one, DataError for the table.
    """
    uri.check_options("energy", "energy_table")
    if not uri.path or not uri.fragment:
        raise ConfigError(
            f"{uri.text!r} names no table or no column", hint="replay://PATH/TABLE.parquet#COLUMN"
        )
    path = Path(uri.path).expanduser()
    energy = None
    if "energy" in uri.options:
        energy_path = Path(uri.options.get("energy_table") or path).expanduser()
        energy = read_column(energy_path, uri.options["energy"])
    return ReplaySession(read_column(path, uri.fragment), name=name, uri=uri.text, energy=energy)
