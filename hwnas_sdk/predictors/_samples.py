"""What every transfer model is given, checked once and the same way.

Transfer models describe NAS-Bench-201; `registry.transfer_model` refuses them to another space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.encodings import checked_cells

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

__all__ = ["checked_cells", "checked_known", "checked_samples"]


def checked_known(
    genotypes: NDArray[np.integer], known: Mapping[str, Floats]
) -> tuple[Ints, dict[str, Floats]]:
    """Known devices, with NaN for everything that is not a positive number.

    Shapes: genotypes (n, 6), known device -> (n,). Raises: SpaceError, and ModelError for columns
    of another length.
    """
    cells = checked_cells(genotypes)
    columns: dict[str, Floats] = {}
    for device, values in known.items():
        column = np.array(values, dtype=np.float64)
        if column.shape != (len(cells),):
            raise ModelError(f"{device}: {column.shape} values for {len(cells)} architectures")
        column[~(np.isfinite(column) & (column > 0))] = np.nan
        columns[device] = column
    return cells, columns


def checked_samples(
    genotypes: NDArray[np.integer], values: Floats, *, at_least: int = 1
) -> tuple[Ints, Floats]:
    """Architectures of a new device and their values, (k, 6) and (k,).

    Raises: SpaceError, and ModelError for fewer than `at_least` or any that is no positive number.
    """
    cells, y = checked_cells(genotypes), np.asarray(values, dtype=np.float64)
    if y.shape != (len(cells),):
        raise ModelError(f"{y.shape} values for {len(cells)} architectures")
    if len(y) < at_least:
        raise ModelError(
            f"{len(y)} measured architectures, this model needs {at_least}",
            hint="measure more, or use a model that needs fewer",
        )
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise ModelError(
            "every measurement must be a positive number", hint="leave out what was not measured"
        )
    return cells, y
