"""The schema, as numbered SQL files with checksums.

A store records which files made it. A store newer than this program is refused, and so is one that
was made by another text of a file we ship. An upgrade is one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from hwnas_sdk.core.clock import SYSTEM_CLOCK
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.store.faults import no_store_error

APPLICATION_ID: Final = 0x68776E73  # "hwns", in the header of every store


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. `sha256` is of the text with LF line ends."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Checksum recorded in the store."""
        return sha256_bytes(self.sql.encode())

    def statements(self) -> Iterator[str]:
        """Single SQL statements; `executescript` would commit half an upgrade."""
        *pieces, rest = self.sql.split(";")
        statement = ""
        for piece in pieces:  # a semicolon may also stand in a trigger, a string or a comment
            statement += f"{piece};"
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        statement += rest
        if any(
            line and not line.startswith("--") for line in map(str.strip, statement.split("\n"))
        ):
            raise ValueError(f"migration {self.name} ends inside a statement")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the header and catalogue of a SQLite file say about whose it is."""

    application_id: int
    version: int
    n_objects: int

    @property
    def foreign(self) -> bool:
        """Whether another program wrote it. An empty file is nobody's."""
        if self.application_id == APPLICATION_ID:
            return False
        return bool(self.application_id or self.version or self.n_objects)


def load_migrations(folder: Traversable) -> tuple[Migration, ...]:
    """Read ``NNNN_name.sql`` files, which must be numbered 1, 2, ... without a gap."""
    found = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    migrations = tuple(
        Migration(int(entry.name[:4]), entry.name.removesuffix(".sql"), entry.read_text("utf-8"))
        for entry in found
    )
    assert [m.version for m in migrations] == list(range(1, len(migrations) + 1))
    return migrations


@cache
def shipped_migrations() -> tuple[Migration, ...]:
    """Migrations that travel with the package."""
    return load_migrations(files("hwnas_sdk.store") / "migrations")


def identify(connection: sqlite3.Connection) -> Identity:
    """Read whose file it is, and at which version; one consistent view."""
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        return Identity(
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0],
        )
    finally:
        if own and connection.in_transaction:
            connection.execute("ROLLBACK")


def migrate(
    connection: sqlite3.Connection, migrations: tuple[Migration, ...], *, path: Path
) -> None:
    """Bring the schema to the newest version; nothing changes on an error.

    Foreign keys must be off: a step may rebuild tables. They are checked before the commit.
    Raises: DataError schema_too_new, migration_changed, upgrade_failed; sqlite3.Error.
    """
    version = identify(connection).version
    if version == len(migrations):
        verify(connection, migrations, path=path)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = identify(connection).version  # somebody may have been faster
        if version:
            verify(connection, migrations[:version], path=path)
        for migration in migrations[version:]:
            _apply(connection, migration)
        _check_references(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_references(connection: sqlite3.Connection, path: Path) -> None:
    if broken := connection.execute("PRAGMA foreign_key_check").fetchall():
        raise DataError(
            f"store {path} cannot be upgraded: {len(broken)} rows point to nothing",
            code="upgrade_failed",
            hint="'hwnas store check' of the version that wrote it lists them",
        )


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in migration.statements():
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_migration (version, name, sha256, applied_at) VALUES (?, ?, ?, ?)",
        (migration.version, migration.name, migration.sha256, SYSTEM_CLOCK.now().isoformat()),
    )
    connection.execute(f"PRAGMA user_version = {migration.version:d}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")


def verify(
    connection: sqlite3.Connection, migrations: tuple[Migration, ...], *, path: Path
) -> None:
    """Refuse a store whose recorded history is not exactly `migrations`.

    Raises: DataError no_store, schema_too_new, schema_too_old, migration_changed, store_damaged.
    """
    version = identify(connection).version
    if version > len(migrations):
        raise DataError(
            f"store {path} has schema {version}, this program knows up to {len(migrations)}",
            code="schema_too_new",
            hint="upgrade hwnas-sdk, or name another store with --db",
        )
    if version == 0:
        raise no_store_error(path)
    if version < len(migrations):
        raise DataError(
            f"store {path} has schema {version}, this program needs {len(migrations)}",
            code="schema_too_old",
            hint="open it once for writing to upgrade it, e.g. with 'hwnas measure'",
        )
    recorded = [
        (row["version"], row["sha256"])
        for row in connection.execute(
            "SELECT version, sha256 FROM schema_migration ORDER BY version"
        )
    ]
    if [number for number, _ in recorded] != [m.version for m in migrations]:
        raise DataError(
            f"store {path} says schema {version} but does not record how it was made",
            code="store_damaged",
            hint="restore a backup",
        )
    for (number, sha256), migration in zip(recorded, migrations, strict=True):
        if sha256 != migration.sha256:
            raise DataError(
                f"store {path} was made by another text of migration {number} ({migration.name})",
                code="migration_changed",
                hint="use the hwnas-sdk version that made it, or export it and start a new store",
            )
