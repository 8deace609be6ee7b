"""Columns that are one measurement under two names.

Published tables repeat each other: the latencies of one table's ``raspi4`` are those of another
one's ``cifar10_raspi4``, number for number, and an estimate may be a measured column times a
constant. Whoever learns from one of them and is judged on the other is judged on what he was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError

Floats = NDArray[np.float64]

# Of the public columns, no two that were measured apart agree like this on more than 40 % of the
# architectures; simulations of one accelerator for another number of classes do on all.
_CLOSE: Final = 0.01  # relative
_SHARE: Final = 0.99
_LEAST_COMMON: Final = 20  # fewer architectures in common prove nothing


def is_alias(one: Floats, other: Floats) -> bool:
    """Whether two columns are equal or proportional, to 1 %, on 99 % of their common rows.

    Shapes: (n,), (n,), NaN = not measured; rows without two positive values do not count, and
    fewer than 20 that do are too few to say so.
    """
    with np.errstate(invalid="ignore"):
        common = (one > 0) & (other > 0) & np.isfinite(one) & np.isfinite(other)
    if common.sum() < _LEAST_COMMON:
        return False
    logs = np.log(one[common] / other[common])
    return bool(np.mean(np.abs(logs - np.median(logs)) <= _CLOSE) >= _SHARE)


def aliases_of(column: Floats, known: Mapping[str, Floats]) -> tuple[str, ...]:
    """Names of the known columns that are `column` under another name. Shapes: (n,)."""
    return tuple(name for name, other in known.items() if is_alias(column, other))


def refuse_aliases(known: Mapping[str, Floats], unseen: Mapping[str, Floats]) -> None:
    """Refuse to learn from a column and be judged on it. Shapes: device -> (n,), NaN = unknown.

    Raises: ConfigError that names a known and an unseen device that are one.
    """
    for device, column in unseen.items():
        found = aliases_of(column, known)
        if found:
            raise ConfigError(
                f"training device {found[0]!r} holds the values of unseen device {device!r}, equal "
                "or times a constant: nothing would be left to predict",
                code="leaked_device",
                hint=f"leave out {', '.join(found)} or {device}",
            )
