"""Devices of public tables on two sides: those a training learns from, those it is judged on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.predictors.metrics import agreement
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.store.aliases import refuse_aliases
from hwnas_sdk.store.tables import BenchTables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def two_sides(
    tables: BenchTables,
    train_devices: Sequence[str],
    devices: Sequence[str],
    *,
    metric: str = "latency",
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Columns to learn from and to be judged on, live rows only: device -> (n_live,) each.

    Raises: ConfigError for a device that is not in the tables, or is on both sides by name or by
        its values.
    """
    both = sorted(set(train_devices) & set(devices))
    if both:
        raise ConfigError(f"{', '.join(both)}: a training device cannot judge the training")
    known, judged = (
        {name: tables.device(name, metric=metric)[tables.live] for name in names}
        for names in (train_devices, devices)
    )
    refuse_aliases(known, judged)
    return known, judged


def rows_of(tables: BenchTables, architectures: Iterable[Sequence[int]]) -> Ints:
    """Those of some genotypes that are live rows, by their number among these, (k,)."""
    row_of = {tuple(row): i for i, row in enumerate(tables.genotypes[tables.live].tolist())}
    rows = (row_of.get(tuple(genotype)) for genotype in architectures)
    return np.array([row for row in rows if row is not None], dtype=np.int64)


def told_and_rest(name: str, truth: Floats, references: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Rows a device is told by, and a mask of the measured others; arguments as `judged`.

    Raises: DataError when one of both is empty.
    """
    rest = np.isfinite(truth) & (truth > 0)
    told = references[rest[references]]
    rest[told] = False
    if not told.size or not rest.any():
        raise DataError(
            f"{name}: {told.size} measured reference networks and {int(rest.sum())} others",
            code="too_few_rows",
            hint="leave it out of --devices, or name tables that have both",
        )
    return told, rest


def judged(
    name: str, truth: Floats, references: Ints, predict: Callable[[Ints, Floats, Ints], Prediction]
) -> dict[str, Any]:
    """Figures of `Agreement` on all measured rows that were not told, and ``n_samples`` of these.

    Args:
        name: of the device.
        truth: (n,), NaN = not measured.
        references: rows the device is told by, where it was measured.
        predict: takes the told rows with their values, and the judged rows.

    Raises: DataError when one of both is empty.
    """
    told, rest = told_and_rest(name, truth, references)
    mean, sd = predict(told, truth[told], np.flatnonzero(rest))
    figures = agreement(truth[rest], mean, sd if np.isfinite(sd).all() else None)
    return {**asdict(figures), "n_samples": int(told.size)}
