"""Opening the SQLite file: whose file it is, its schema, its pragmas; and transactions.

The file is never read or closed by any other means than SQLite in here: closing a second
descriptor of a database drops the POSIX locks this process holds on it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Deadline
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.faults import (
    damaged_error,
    no_store_error,
    os_error_of,
    primary_code,
    sync_folder,
    translated,
)
from hwnas_sdk.store.migrate import Migration, identify, migrate, verify

BUSY_TIMEOUT_S: Final = 15.0
MIN_SQLITE: Final = (3, 37, 0)  # STRICT tables
_WAL_LIMIT_BYTES: Final = 64 << 20

_LOG = logging.getLogger(__name__)


def open_connection(
    path: Path, *, read_only: bool, busy_timeout_s: float, migrations: tuple[Migration, ...]
) -> sqlite3.Connection:
    """Open, create or upgrade the store at `path`.

    Raises: DataError; see `faults.error_of`, and `not_a_store`, `foreign_database`, `no_store`,
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
        raise no_store_error(path)
    options = "mode=ro"
    if not os.access(path.parent, os.W_OK) and not _beside(path, "-shm").exists():
        # SQLite wants to create its shared index beside the file even for reading. Where that is
        # impossible nobody else of our rights can be writing either.
        if _has_log(path):
            raise DataError(
                f"store {path} was not closed and lies in a folder that cannot be written",
                code="store_read_only",
                hint="copy it and its -wal file to a writable folder, and name it with --db",
            )
        options = "mode=ro&immutable=1"
    with translated(path):
        connection = _connect(path, options, busy_timeout_s)
        try:
            _identify_or_refuse(connection, path)
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


def _identify_or_refuse(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse other people's files, and one that was cut off."""
    if path.stat().st_size == 1:  # SQLite would take a file of one byte for an empty one
        raise _not_a_store(path)
    try:
        identity = identify(connection)
    except sqlite3.DatabaseError as exc:
        if primary_code(exc) != sqlite3.SQLITE_NOTADB:
            raise
        raise _not_a_store(path) from exc
    if identity.foreign:
        raise DataError(
            f"{path} is the database of another program",
            code="foreign_database",
            hint="name another file with --db; this one was left as it is",
        )
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    if path.stat().st_size % page_bytes and not _has_log(path):
        # SQLite itself only misses whole pages.
        raise damaged_error(path, "the end of the file is missing")


def _write_ahead(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Make commits durable: kill -9 and power loss keep what was acknowledged."""
    deadline = Deadline.after(busy_timeout_s)
    while True:
        # Several first openers may want to switch at once; SQLite then refuses without waiting.
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as exc:
            if primary_code(exc) != sqlite3.SQLITE_BUSY or deadline.expired:
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
            sync_folder(made.parent)
    except OSError as exc:
        raise os_error_of(exc, folder) from exc


def _not_a_store(path: Path) -> DataError:
    return DataError(
        f"{path} is not a measurement store (not even a SQLite file)",
        code="not_a_store",
        hint="name another file with --db; this one was left as it is",
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _has_log(path: Path) -> bool:
    log = _beside(path, "-wal")
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
