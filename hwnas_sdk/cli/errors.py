"""From an exception to what the user sees: one line each, an exit code, a JSON document."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from hwnas_sdk.core.errors import HwnasError

EXIT_USAGE = 2
EXIT_DATA = 6
EXIT_INTERRUPTED = 75
EXIT_OTHER = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong, as a person and as a script reads it."""

    message: str
    code: str
    hint: str
    exit_code: int

    @property
    def line(self) -> str:
        """Message, hint and code on one line."""
        if self.code == "interrupted":
            return f"{self.message}; {self.hint}"
        if self.code == "internal":
            return f"internal error: {self.message} ({self.hint})"
        hint = f" ({self.hint})" if self.hint else ""
        return f"error: {self.message}{hint} [{self.code}]"

    def to_json(self) -> dict[str, str]:
        """Code, message and hint."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


CONTINUES = "run the same command to continue"
STARTS_OVER = "the same command starts over"


def failures_of(error: BaseException, *, interrupted: str = CONTINUES) -> list[Failure]:
    """Describe `error`; a group of errors gives one entry for each.

    `interrupted` says what the same command does after an interruption.
    """
    if isinstance(error, BaseExceptionGroup):
        return [
            failure
            for inner in error.exceptions
            for failure in failures_of(inner, interrupted=interrupted)
        ]
    return [_describe(error, interrupted)]


def exit_code_of(failures: Sequence[Failure]) -> int:
    """The exit code for all: an interruption, else an internal error, else the largest."""
    codes = {failure.exit_code for failure in failures}
    for first in (EXIT_INTERRUPTED, EXIT_OTHER):
        if first in codes:
            return first
    return max(codes)


def document_of(failures: Sequence[Failure]) -> Mapping[str, Any]:
    """``{"error": {code, message, hint}}``; several failures add ``errors`` with all of them."""
    document: dict[str, Any] = {"error": failures[0].to_json()}
    if len(failures) > 1:
        document["errors"] = [failure.to_json() for failure in failures]
    return document


def _describe(error: BaseException, interrupted: str) -> Failure:
    match error:
        case HwnasError():
            return Failure(_flat(error.message), error.code, _flat(error.hint), error.exit_code)
        case KeyboardInterrupt() | click.Abort() | EOFError():
            return Failure("interrupted", "interrupted", interrupted, EXIT_INTERRUPTED)
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "hwnas"
            hint = getattr(error, "hint", f"see '{path} --help'")
            return Failure(_flat(error.format_message()), "usage", hint, EXIT_USAGE)
        case click.ClickException():
            return Failure(_flat(error.format_message()), "usage", "", EXIT_USAGE)
        case OSError():
            return _describe_os_error(error)
        case _:
            text = f"{type(error).__name__}: {_flat(str(error))}".rstrip(": ")
            return Failure(text, "internal", "run again with -vv for the traceback", EXIT_OTHER)


def _describe_os_error(error: OSError) -> Failure:
    """A file or folder of the user's that cannot be read or written."""
    what = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno == errno.ENOSPC:
        return Failure(f"{where}{what}", "no_space", "free some space and run again", EXIT_DATA)
    hint = "check the path and its permissions; -vv shows the traceback"
    return Failure(_flat(f"{where}{what}"), "os_error", hint, EXIT_DATA)


def _flat(text: str) -> str:
    return " ".join(text.split("\n")).strip().removesuffix(".")
