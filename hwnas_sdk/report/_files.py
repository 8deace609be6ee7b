"""Writing a page or a picture so that a reader never sees half of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hwnas_sdk.core.errors import DataError


def write_atomic(content: bytes, path: Path) -> Path:
    """Write through a temporary file in the same folder, fsync and a rename.

    Raises: DataError when the file cannot be written; nothing is left behind then.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise DataError(
            f"cannot write the report {path}: {exc.strerror or exc}",
            code="report_not_written",
            hint="choose another place, or free some space",
        ) from exc
    return path
