"""The error tree.

HwnasError
 +- ConfigError          wrong option, file or inventory              exit 3
 +- SpaceError           wrong architecture string or genotype        exit 3
 +- ExportError          a graph or model that cannot be deployed     exit 3
 +- DeviceError          a board that cannot be reached or used       exit 4
 +- MeasurementError     a measurement that cannot be trusted         exit 5
 +- DataError            store, table or data set                     exit 6
 +- ModelError           predictor weights and cards                  exit 6
 +- MissingExtraError    an optional package is not installed         exit 3
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

_UNSAFE: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""What a terminal would obey instead of showing it, and what cannot be encoded."""


def printable(text: str) -> str:
    """`text` fit for a terminal and a file: boards and files we do not know may have said it."""
    return _UNSAFE.sub("?", text)


class HwnasError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: one line: what happened, to which device or architecture. Foreign text in it
            (a name from a damaged file, a board's output) is made `printable`, on one line.
        code: machine-readable reason, snake_case.
        hint: one line, likewise: what the reader can do next.
        retryable: whether the same call may succeed without a change.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str = "", retryable: bool = False
    ) -> None:
        """Keep the message and its machine-readable parts."""
        self.message = printable(" ".join(message.splitlines()))
        super().__init__(self.message)
        self.code = code or self.default_code
        self.hint = printable(" ".join(hint.splitlines()))
        self.retryable = retryable

    def __str__(self) -> str:
        """Message and hint on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(HwnasError):
    """A wrong option, configuration file or inventory entry."""

    exit_code = 3
    default_code = "config"


class SpaceError(HwnasError):
    """A string or genotype that is not a member of its search space."""

    exit_code = 3
    default_code = "bad_architecture"


class ExportError(HwnasError):
    """A network that cannot be turned into, or read from, a deployable file."""

    exit_code = 3
    default_code = "export"


class DeviceError(HwnasError):
    """A board that cannot be reached, leased or used."""

    exit_code = 4
    default_code = "device"

    def __init__(
        self,
        message: str,
        *,
        device_id: str = "",
        code: str | None = None,
        hint: str = "",
        retryable: bool = False,
    ) -> None:
        """Keep which device it was."""
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.device_id = device_id


class MeasurementError(HwnasError):
    """A measurement that failed or cannot be trusted."""

    exit_code = 5
    default_code = "measurement"

    def __init__(
        self,
        message: str,
        *,
        device_id: str = "",
        arch_id: str = "",
        code: str | None = None,
        hint: str = "",
        retryable: bool = False,
    ) -> None:
        """Keep which device and which architecture it was."""
        super().__init__(message, code=code, hint=hint, retryable=retryable)
        self.device_id = device_id
        self.arch_id = arch_id


class DataError(HwnasError):
    """A store, table or data set that cannot be read or written."""

    exit_code = 6
    default_code = "data"


class ModelError(HwnasError):
    """Predictor weights or a card that do not fit."""

    exit_code = 6
    default_code = "model"


class MissingExtraError(HwnasError):
    """An optional package is not installed."""

    exit_code = 3
    default_code = "missing_extra"

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        """Name the package, the extra that brings it and what it is needed for."""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            hint=f"pip install 'hwnas-sdk[{extra}]'",
        )
        self.package = package
        self.extra = extra
