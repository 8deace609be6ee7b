"""SQLite's and the operating system's errors, said in our words: what happened, what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import DataError

_FEW_BYTES: Final = 1 << 20


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into DataError."""
    try:
        yield
    except sqlite3.Error as exc:
        raise error_of(exc, path) from exc
    except UnicodeEncodeError as exc:
        raise DataError(f"{exc.object!r} is not text", code="bad_row") from exc


def error_of(error: sqlite3.Error, path: Path) -> DataError:  # noqa: PLR0911 (one a case)
    """Say what SQLite's error means for the store at `path`.

    Codes: store_locked, no_space, store_damaged, store_read_only, cannot_open, store_io,
    constraint, store.
    """
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DataError(
                f"store {path} is locked by another process",
                code="store_locked",
                hint="wait until the other hwnas command has finished, then run this one again",
                retryable=True,
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged_error(path, str(error))
        case sqlite3.SQLITE_ERROR if str(error).startswith("no such "):  # table or column
            return damaged_error(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return read_only_error(path)
        case sqlite3.SQLITE_CANTOPEN:
            if not os.access(path.parent, os.W_OK):
                return read_only_error(path)
            return DataError(
                f"store {path} cannot be opened: {error}",
                code="cannot_open",
                hint="check that the path names a file you may read and write",
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return DataError(f"store {path} refused a row: {error}", code="constraint")
        case sqlite3.SQLITE_FULL:
            return _no_space(path)
        case sqlite3.SQLITE_IOERR:
            if _disk_is_full(path):
                return _no_space(path)
            return DataError(
                f"store {path}: the disk failed to read or write ({error})",
                code="store_io",
                hint="check the disk and the kernel log; nothing was half-written",
            )
        case _:
            return DataError(f"store {path}: {error}", code="store")


def os_error_of(error: OSError, path: Path) -> DataError:
    """Say what the operating system's error means for a file or folder at `path`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _no_space(path)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return read_only_error(path)
    return DataError(
        f"{path}: {error.strerror or error}", code="cannot_open", hint="check the path"
    )


def sync_folder(folder: Path) -> None:
    """Make the names of new files in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of the Python layer."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FEW_BYTES
    except OSError:
        return False


def damaged_error(path: Path, reason: str) -> DataError:
    """`store_damaged`: the file is one of ours, and broken."""
    return DataError(
        f"store {path} is damaged: {reason}",
        code="store_damaged",
        hint="copy the file aside and restore a backup; 'sqlite3 FILE .recover' may help",
    )


def _no_space(path: Path) -> DataError:
    return DataError(
        f"no space left to write {path}",
        code="no_space",
        hint="free some space and run the same command again; nothing was half-written",
    )


def read_only_error(path: Path) -> DataError:
    """`store_read_only`: the file or its folder cannot be written."""
    return DataError(
        f"{path} cannot be written: no permission, or a read-only disk",
        code="store_read_only",
        hint="name a writable file with --db, or set HWNAS_HOME to a writable folder",
    )


def no_store_error(path: Path) -> DataError:
    """`no_store`: there is nothing to read."""
    return DataError(
        f"there is no store at {path}",
        code="no_store",
        hint="'hwnas measure' or 'hwnas quickstart' creates it; --db names another one",
    )
