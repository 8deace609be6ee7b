"""Writing files so that a killed process or a full disk leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from hwnas_sdk.core.errors import DataError


def write_bytes_atomic(path: Path, data: bytes) -> Path:
    """Replace `path` by `data`, durably, all or nothing; returns `path`.

    Raises: DataError (`no_space` or `not_writable`) that names the file.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as exc:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise _not_written(path, exc) from exc
    return path


def write_text_atomic(path: Path, text: str) -> Path:
    """Replace `path` by `text` (UTF-8); see `write_bytes_atomic`."""
    return write_bytes_atomic(path, text.encode())


def check_writable(path: Path) -> None:
    """Find out now whether `path` could be written later.

    Raises: DataError (`no_space` or `not_writable`) that names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as exc:
        raise _not_written(path, exc) from exc


def _not_written(path: Path, exc: OSError) -> DataError:
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return DataError(
        f"cannot write {path}: {exc.strerror}",
        code="no_space" if full else "not_writable",
        hint="free some disk space" if full else "choose another path",
    )
