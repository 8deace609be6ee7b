"""Public benchmark tables (Parquet) as arrays, for benches and for training shipped priors.

A missing value means "not measured" and is NaN here, and only here: numeric code inside a bench
masks it, results never carry it on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError, SpaceError
from hwnas_sdk.spaces import get_space

_log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

ACCURACY_TABLE: Final = "nasbench201.parquet"
LATENCY_TABLE: Final = "nasbench201_latency.parquet"
_HWNASBENCH: Final[dict[str, tuple[str, str]]] = {
    "latency": ("nasbench201_hwnasbench_latency.parquet", "_latency_ms"),
    "energy": ("nasbench201_hwnasbench_energy.parquet", "_energy_mj"),
}
_HOW_TO_GET: Final[dict[str, str]] = {
    ACCURACY_TABLE: "the accuracies of NATS-Bench (MIT) by index, in the form of the data README",
    LATENCY_TABLE: "the latencies of HELP (MIT), data/nasbench201/latency of HayeonLee/HELP",
    _HWNASBENCH["latency"][0]: "HW-NAS-Bench v1.0 (MIT), GATECH-EIC/HW-NAS-Bench",
    _HWNASBENCH["energy"][0]: "HW-NAS-Bench v1.0 (MIT), GATECH-EIC/HW-NAS-Bench",
}
_ACCURACY_SUFFIX: Final = "_test_acc"
_NOT_DEVICES: Final = frozenset({"index", "arch"})
DEAD_ERROR_PCT: Final = 90.0  # cells at or above it are dropped by the evaluation protocol


@dataclass(frozen=True)
class BenchTables:
    """NAS-Bench-201 rows with what is known about them.

    Attributes:
        space: name of the search space of the rows.
        index: official indices, (n,).
        arch: official strings, n of them.
        genotypes: (n, 6).
        accuracy_pct: column name without ``_test_acc`` -> (n,), NaN = unknown.
        latency_ms: device -> (n,), NaN = not measured.
        energy_mj: device -> (n,), NaN = not measured.
        folders: where the tables were read.
    """

    space: ClassVar[str] = "nasbench201"

    index: NDArray[np.int64]
    arch: tuple[str, ...]
    genotypes: NDArray[np.int64]
    accuracy_pct: dict[str, Floats]
    latency_ms: dict[str, Floats]
    energy_mj: dict[str, Floats]
    folders: tuple[str, ...] = ()
    _family_column: NDArray[np.int64] | None = field(default=None, repr=False)

    @cached_property
    def families(self) -> NDArray[np.int64]:
        """Function family of each row, equal exactly for cells that compute the same, (n,).

        Read from the table where it has the column, else computed by the space.
        """
        if self._family_column is not None:
            return self._family_column
        return get_space(self.space).family_numbers(self.genotypes)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Rows the evaluation protocol keeps: CIFAR-10 error below 90 %, (n,).

        Where that accuracy is unknown, rows whose output depends on their input.
        """
        space = get_space(self.space)
        error = self.error_pct("cifar10") if "cifar10" in self.accuracy_pct else None
        known = np.zeros(len(self.index), bool) if error is None else np.isfinite(error)
        mask = np.zeros(len(self.index), dtype=np.bool_)
        if error is not None:
            mask[known] = error[known] < DEAD_ERROR_PCT
        for row in np.flatnonzero(~known):
            mask[row] = not space.is_dead(space.architecture(self.genotypes[row]))
        return mask

    def error_pct(self, dataset: str = "cifar10") -> Floats:
        """100 - test accuracy, (n,), NaN = unknown.

        Raises: ConfigError that lists the data sets there are.
        """
        if dataset not in self.accuracy_pct:
            raise ConfigError(
                f"the tables hold no test accuracy for {dataset!r}",
                hint=f"there are: {', '.join(sorted(self.accuracy_pct))}",
            )
        error: Floats = 100.0 - self.accuracy_pct[dataset]
        return error

    def metric(self, name: str) -> dict[str, Floats]:
        """Device columns of a metric, "latency" (ms) or "energy" (mJ).

        Raises: ConfigError for another name, DataError when no table holds the metric.
        """
        if name not in ("latency", "energy"):
            raise ConfigError(f"unknown metric {name!r}", hint="latency or energy")
        columns = self.latency_ms if name == "latency" else self.energy_mj
        if not columns:
            files = [LATENCY_TABLE] if name == "latency" else []
            raise _missing([*files, _HWNASBENCH[name][0]], self.folders)
        return columns

    def device(self, name: str, *, metric: str = "latency") -> Floats:
        """One device's column, (n,), NaN = not measured.

        Raises: ConfigError that lists the devices there are.
        """
        columns = self.metric(metric)
        if name not in columns:
            raise ConfigError(
                f"device {name!r} has no {metric} in the tables",
                hint=f"there are: {', '.join(sorted(columns))}",
            )
        return columns[name]


def load_tables(folders: Sequence[Path]) -> BenchTables:
    """Read the tables of one or more folders.

    Rows are those of the first ``nasbench201.parquet``; the device tables join on `index`. Later
    folders add devices; a device they name again replaces the earlier column.

    Raises: DataError naming the file that is missing (and how to get it), unreadable, or whose
        rows do not fit.
    """
    paths = [Path(folder) for folder in folders]
    names = tuple(str(path) for path in paths)
    if not paths:
        raise ConfigError("no data folder was named", hint="--data DIR")
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path} is not a folder", code="table_missing", hint="--data DIR")
    main = next((p / ACCURACY_TABLE for p in paths if (p / ACCURACY_TABLE).is_file()), None)
    if main is None:
        raise _missing([ACCURACY_TABLE], names)
    table = _read(main)
    index, arch, genotypes = _rows(table, main)
    accuracy = {
        column.removesuffix(_ACCURACY_SUFFIX): _floats(table, column)
        for column in table.column_names
        if column.endswith(_ACCURACY_SUFFIX)
    }
    families = None
    if "function_family_rep_index" in table.column_names:
        families = table["function_family_rep_index"].to_numpy().astype(np.int64)
    latency: dict[str, Floats] = {}
    energy: dict[str, Floats] = {}
    for path in paths:
        _add_devices(latency, path / LATENCY_TABLE, "", index, arch)
        for metric, into in (("latency", latency), ("energy", energy)):
            file, suffix = _HWNASBENCH[metric]
            _add_devices(into, path / file, suffix, index, arch)
    if not latency and not energy:
        raise _missing([LATENCY_TABLE], names)
    return BenchTables(index, arch, genotypes, accuracy, latency, energy, names, families)


def _missing(files: Sequence[str], folders: Iterable[str]) -> DataError:
    return DataError(
        f"{' or '.join(files)} is missing in {', '.join(folders)}",
        code="table_missing",
        hint="it holds " + "; ".join(_HOW_TO_GET[file] for file in files),
    )


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as exc:
        reason = str(exc).splitlines()[0]
        raise DataError(f"{path} cannot be read: {reason}", code="table_damaged") from exc


def _floats(table: pa.Table, column: str) -> Floats:
    """Column as float64; null, NaN and infinities become NaN."""
    try:
        values: Floats = table[column].cast(pa.float64()).to_numpy().astype(np.float64)
    except pa.ArrowInvalid as exc:
        raise DataError(f"column {column!r} is not numeric", code="table_damaged") from exc
    values[~np.isfinite(values)] = np.nan
    return values


def _rows(
    table: pa.Table, path: Path
) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int64]]:
    absent = _NOT_DEVICES - set(table.column_names)
    if absent:
        raise DataError(f"{path} has no column {', '.join(sorted(absent))}", code="table_damaged")
    index = table["index"].to_numpy().astype(np.int64)
    if len(np.unique(index)) != len(index):
        raise DataError(f"{path} names an index twice", code="table_damaged")
    arch = tuple(table["arch"].to_pylist())
    try:
        return index, arch, _decode_all(arch)
    except SpaceError as exc:
        raise DataError(f"{path}: {exc.message}", code="table_damaged") from exc


def _decode_all(arch: Sequence[str]) -> NDArray[np.int64]:
    """Genotypes of official strings, (n, 6).

    The space decodes a string only when one of its three nodes was not seen before: 155 node texts
    make up the whole space, and decoding all strings would dominate the time to read the tables.
    """
    space = get_space(BenchTables.space)
    bounds = (0, 1, 3, 6)
    seen: dict[tuple[int, str], tuple[int, ...]] = {}
    rows = np.empty((len(arch), space.n_decisions), dtype=np.int64)
    for row, text in enumerate(arch):
        nodes = tuple(enumerate(str(text).split("+")))
        if len(nodes) != len(bounds) - 1 or any(node not in seen for node in nodes):
            genotype = space.decode(str(text)).genotype
            for node, start, stop in zip(nodes, bounds, bounds[1:], strict=False):
                seen[node] = genotype[start:stop]
        rows[row] = [gene for node in nodes for gene in seen[node]]
    return rows


def _add_devices(
    into: dict[str, Floats],
    path: Path,
    suffix: str,
    index: NDArray[np.int64],
    arch: tuple[str, ...],
) -> None:
    """Join the device columns of one table (names ending in `suffix`) to the rows `index`."""
    if not path.is_file():
        return
    table = _read(path)
    if "index" not in table.column_names:
        raise DataError(f"{path} has no column index", code="table_damaged")
    own = table["index"].to_numpy().astype(np.int64)
    row_of = {int(i): row for row, i in enumerate(own)}
    rows = np.array([row_of.get(int(i), -1) for i in index], dtype=np.int64)
    _check_strings(table, path, rows, arch)
    for column in table.column_names:
        if column in _NOT_DEVICES or not column.endswith(suffix):
            continue
        device = column.removesuffix(suffix) if suffix else column
        if device in into:
            _log.info("device %s: %s replaces the column read before", device, path)
        values = _floats(table, column)
        # A latency or an energy of nothing is a failed measurement, not a fast network.
        values[values < 0] = np.nan
        joined: Floats = np.full(len(rows), np.nan)
        joined[rows >= 0] = values[rows[rows >= 0]]
        into[device] = joined


def _check_strings(
    table: pa.Table, path: Path, rows: NDArray[np.int64], arch: tuple[str, ...]
) -> None:
    """Refuse a table whose strings disagree with the main table's for the same index."""
    if "arch" not in table.column_names:
        return
    own = table["arch"].to_pylist()
    for text, row in zip(arch, rows, strict=True):
        if row >= 0 and own[row] != text:
            raise DataError(
                f"{path}: row {row} is {own[row]!r} where {ACCURACY_TABLE} says {text!r}",
                code="table_damaged",
                hint="both tables must use the official index",
            )
