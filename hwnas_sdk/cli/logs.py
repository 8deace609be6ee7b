"""The library's log on stderr, for the time of one command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

_LEVELS = {0: logging.WARNING, 1: logging.INFO}


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is now, so that a live progress bar stays below the log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(self.format(record), file=sys.stderr)  # noqa: T201


def log_to_stderr(*, verbosity: int, quiet: bool) -> Callable[[], None]:
    """Show the package's log: warnings, with -v what happens, with -vv everything.

    Returns: a function that undoes it.
    """
    logger = logging.getLogger("hwnas_sdk")
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.setLevel(logging.ERROR if quiet else _LEVELS.get(verbosity, logging.DEBUG))
    logger.addHandler(handler)

    def undo() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    return undo
