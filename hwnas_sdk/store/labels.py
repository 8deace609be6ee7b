"""Errors of architectures from a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError, SpaceError
from hwnas_sdk.spaces.base import SearchSpace

_ERROR: Final = "error_pct"
_ACCURACY: Final = "accuracy_pct"


def load_error_labels(
    path: Path, space: SearchSpace
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read columns ``arch`` and ``error_pct`` (or ``accuracy_pct``) of a CSV or Parquet file.

    Rows without a number are left out; a repeated architecture counts with the mean of its rows.
    Returns genotypes (n, d) and errors (n,) in percent.

    Raises: DataError that names the file, and the row of an architecture or number that is wrong.
    """
    table = _table(path)
    names = set(table.column_names)
    if "arch" not in names or not names & {_ERROR, _ACCURACY}:
        raise DataError(
            f"{path.name}: needs columns arch and {_ERROR} (or {_ACCURACY}), has "
            f"{', '.join(table.column_names)}",
            code="bad_labels",
        )
    column = _ERROR if _ERROR in names else _ACCURACY
    errors: dict[tuple[int, ...], list[float]] = {}
    rows = zip(table["arch"].to_pylist(), table[column].to_pylist(), strict=True)
    for number, (text, value) in enumerate(rows, start=1):
        if value is None or (isinstance(value, float) and np.isnan(value)):
            continue
        if isinstance(value, str) or not 0 <= value <= 100:
            raise DataError(
                f"{path.name}, row {number}: {column} is {value!r}, not a percentage",
                code="bad_labels",
            )
        try:
            genotype = space.decode(str(text)).genotype
        except SpaceError as exc:
            raise DataError(f"{path.name}, row {number}: {exc}", code="bad_labels") from exc
        error = float(value) if column == _ERROR else 100.0 - float(value)
        errors.setdefault(tuple(genotype), []).append(error)
    genotypes = np.array(list(errors), dtype=np.int64).reshape(len(errors), space.n_decisions)
    return genotypes, np.array([float(np.mean(values)) for values in errors.values()])


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            return pyarrow.csv.read_csv(path)
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as exc:
        raise DataError(
            f"cannot read {path}: {exc}", code="bad_labels", hint="a .csv or .parquet file"
        ) from exc
