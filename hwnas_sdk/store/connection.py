"""Opening the SQLite file: pragmas, whose file it is, and SQLite's errors as ours.

The file is never read or closed by any other means than SQLite in here: closing a second
descriptor of a database drops the POSIX locks this process holds on it.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Deadline
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.migrate import Migration, identify, migrate, verify

BUSY_TIMEOUT_S: Final = 15.0
MIN_SQLITE: Final = (3, 37, 0)  # STRICT tables
_FEW_BYTES: Final = 1 << 20
_WAL_LIMIT_BYTES: Final = 64 << 20

_LOG = logging.getLogger(__name__)


def open_connection(
    path: Path, *, read_only: bool, busy_timeout_s: float, migrations: tuple[Migration, ...]
) -> sqlite3.Connection:
    """Open, create or upgrade the store at `path`.

    Raises: DataError; see `error_of`, and `not_a_store`, `foreign_database`, `no_store`,
        `schema_too_new`, `schema_too_old`, `migration_changed`.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise DataError(
            f"SQLite {sqlite3.sqlite_version} is too old for the store",
            code="sqlite_too_old",
            hint="use a Python built with SQLite 3.37 or later",
        )
    if path.is_dir():
        raise DataError(f"{path} is a folder", code="cannot_open", hint="name a file in it")
    if read_only:
        return _open_read_only(path, busy_timeout_s, migrations)
    _make_folder(path.parent)
    with translated(path):
        connection = _connect(path, "mode=rwc", busy_timeout_s)
        try:
            _identify_or_refuse(connection, path)
            connection.execute("PRAGMA foreign_keys = OFF")  # tables may be rebuilt
            migrate(connection, migrations, path=path)
            _write_ahead(connection, busy_timeout_s)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def _open_read_only(
    path: Path, busy_timeout_s: float, migrations: tuple[Migration, ...]
) -> sqlite3.Connection:
    if not path.exists():
        raise _no_store(path)
    options = "mode=ro"
    if not os.access(path.parent, os.W_OK) and not _has_log(path):
        # SQLite wants to create its shared index beside the file even for reading. Where that is
        # impossible nobody else of our rights can be writing either.
        options = "mode=ro&immutable=1"
    with translated(path):
        connection = _connect(path, options, busy_timeout_s)
        try:
            if _identify_or_refuse(connection, path) == 0:
                raise _no_store(path)
            verify(connection, migrations, path=path)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def _connect(path: Path, options: str, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions are written out where they happen
        check_same_thread=False,  # the store serialises its callers
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA recursive_triggers = ON")  # REPLACE must not slip past a trigger
    return connection


def _identify_or_refuse(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of the file, 0 for an empty one; refuse other people's."""
    try:
        identity = identify(connection)
    except sqlite3.DatabaseError as exc:
        if _primary(exc) != sqlite3.SQLITE_NOTADB:
            raise
        raise DataError(
            f"{path} is not a measurement store (not even a SQLite file)",
            code="not_a_store",
            hint="name another file with --db; this one was left as it is",
        ) from exc
    if identity.foreign:
        raise DataError(
            f"{path} is the database of another program",
            code="foreign_database",
            hint="name another file with --db; this one was left as it is",
        )
    return identity.version


def _write_ahead(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Make commits durable: kill -9 and power loss keep what was acknowledged."""
    deadline = Deadline.after(busy_timeout_s)
    while True:
        # Several first openers may want to switch at once; SQLite then refuses without waiting.
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as exc:
            if _primary(exc) != sqlite3.SQLITE_BUSY or deadline.expired:
                raise
            SYSTEM_CLOCK.sleep(0.01)
    if mode != "wal":
        _LOG.warning("the store's file system has no shared memory; journal mode is %s", mode)
    # With WAL the same as FULL; without it the folder is synced after a commit, too.
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _make_folder(folder: Path) -> None:
    """Create `folder`, and make its name survive a power loss."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            descriptor = os.open(made.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as exc:
        raise os_error_of(exc, folder) from exc


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that it never has to be upgraded."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk rolls back by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into DataError."""
    try:
        yield
    except sqlite3.Error as exc:
        raise error_of(exc, path) from exc


def error_of(error: sqlite3.Error, path: Path) -> DataError:
    """Say what SQLite's error means for the store at `path`.

    Codes: store_locked, no_space, store_damaged, store_read_only, cannot_open, store_io,
    constraint, store.
    """
    match _primary(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DataError(
                f"store {path} is locked by another process",
                code="store_locked",
                hint="wait until the other hwnas command has finished, then run this one again",
                retryable=True,
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DataError(
                f"store {path} is damaged: {error}",
                code="store_damaged",
                hint="copy the file aside and restore a backup; 'sqlite3 FILE .recover' may help",
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _read_only(path)
        case sqlite3.SQLITE_CANTOPEN:
            if not os.access(path.parent, os.W_OK):
                return _read_only(path)
            return DataError(
                f"store {path} cannot be opened: {error}",
                code="cannot_open",
                hint="check that the path names a file you may read and write",
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return DataError(f"store {path} refused a row: {error}", code="constraint")
        case code if code == sqlite3.SQLITE_FULL or _disk_is_full(path):
            return _no_space(path)
        case sqlite3.SQLITE_IOERR:
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
        return _read_only(path)
    return DataError(
        f"{path}: {error.strerror or error}", code="cannot_open", hint="check the path"
    )


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of the Python layer."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FEW_BYTES
    except OSError:
        return False


def _no_space(path: Path) -> DataError:
    return DataError(
        f"no space left to write {path}",
        code="no_space",
        hint="free some space and run the same command again; nothing was half-written",
    )


def _read_only(path: Path) -> DataError:
    return DataError(
        f"{path} cannot be written: no permission, or a read-only disk",
        code="store_read_only",
        hint="name a writable file with --db, or set HWNAS_HOME to a writable folder",
    )


def _no_store(path: Path) -> DataError:
    return DataError(
        f"there is no store at {path}",
        code="no_store",
        hint="'hwnas measure' or 'hwnas quickstart' creates it; --db names another one",
    )
