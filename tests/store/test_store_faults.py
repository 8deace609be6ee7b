"""Files that are not ours, damaged, locked, newer, read-only, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_records import blocks_ns, record, registered

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store import faults
from hwnas_sdk.store.export import export_csv, export_parquet
from hwnas_sdk.store.sqlite import MeasurementStore


def refused(code: str) -> pytest.RaisesExc:
    return pytest.RaisesExc(
        DataError,
        check=lambda exc: exc.code == code and bool(exc.hint) and "\n" not in str(exc),
    )


@pytest.fixture(scope="module")
def filled_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("filled") / "store.sqlite"
    with registered(path) as store:
        run = store.start_run("measure", {})
        for number in range(60):
            store.add(record(run.id, str(number)), blocks_ns(number))
    return path.read_bytes()


@pytest.fixture
def filled(tmp_path: Path, filled_bytes: bytes) -> Path:
    """A closed store of 60 measurements."""
    path = tmp_path / "store.sqlite"
    path.write_bytes(filled_bytes)
    return path


# --- what is at the path --------------------------------------------------------------------------


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "100% ?#ü.sqlite"
    registered(path).close()
    assert path.is_file()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with MeasurementStore.open(str(path), read_only=True) as store:
        assert store.check() == []


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.touch()
    registered(path).close()
    with MeasurementStore.open(path) as store:
        assert store.check() == []


def test_a_relative_path_may_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registered(Path("here.sqlite")).close()
    assert (tmp_path / "here.sqlite").is_file()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "content", [b"x", b"arch,latency_ms\n" * 400, b"PK\x03\x04" + bytes(5000), bytes(8192)]
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, *, read_only: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with refused("not_a_store"):
        MeasurementStore.open(path, read_only=read_only)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["notes.txt"]  # noqa: PTH208


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE bookmarks (url TEXT)",
        "CREATE TABLE schema_migration (version INTEGER)",
        "PRAGMA application_id = 12345",
        "PRAGMA user_version = 3",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_databases_of_others_are_left_alone(
    tmp_path: Path, statement: str, *, read_only: bool
) -> None:
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
    before = path.read_bytes()
    with refused("foreign_database"):
        MeasurementStore.open(path, read_only=read_only)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["places.sqlite"]  # noqa: PTH208


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with refused("cannot_open"):
        MeasurementStore.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with refused("cannot_open"):
        MeasurementStore.open(tmp_path / "file" / "store.sqlite")
    with refused("no_store"):
        MeasurementStore.open(tmp_path / "store.sqlite", read_only=True)
    (tmp_path / "empty").touch()
    with refused("no_store"):
        MeasurementStore.open(tmp_path / "empty", read_only=True)


def test_links_are_followed_and_bad_names_refused(tmp_path: Path, filled: Path) -> None:
    link = tmp_path / "elsewhere" / "link.sqlite"
    link.parent.mkdir()
    link.symlink_to(filled)
    with MeasurementStore.open(link) as store:
        assert store.path == filled
        assert len(store.measurements()) == 60
    with refused("cannot_open"):
        MeasurementStore.open(tmp_path / ("x" * 300))


def test_an_old_sqlite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with refused("sqlite_too_old"):
        MeasurementStore.open(tmp_path / "store.sqlite")


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [100, 4096, 20_000, 0.5, 0.99])
def test_a_truncated_store_is_damaged(filled: Path, keep: float) -> None:
    size = int(keep if keep > 1 else keep * filled.stat().st_size)
    with filled.open("r+b") as file:
        file.truncate(size)
    before = filled.read_bytes()
    for read_only in (True, False):
        with refused("store_damaged"):
            MeasurementStore.open(filled, read_only=read_only)
    assert filled.read_bytes() == before


def test_damage_in_the_middle_is_found(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as reader:
        page = reader.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'measurement'"
        ).fetchone()[0]
    with filled.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with MeasurementStore.open(filled) as store:
        problems = store.check()
        assert problems
        assert all("\n" not in problem for problem in problems)
        with refused("store_damaged"):
            store.measurements()


def test_a_store_without_its_tables_is_damaged(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as vandal:
        vandal.execute("PRAGMA foreign_keys = OFF")
        vandal.execute("DROP TABLE schema_migration")
    with refused("store_damaged"):
        MeasurementStore.open(filled)


def test_a_store_that_forgot_how_it_was_made_is_damaged(filled: Path) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None)) as vandal:
        vandal.execute("DELETE FROM schema_migration")
    with refused("store_damaged"):
        MeasurementStore.open(filled)


# --- locks ----------------------------------------------------------------------------------------


def test_a_locked_store_says_so_in_one_line(filled: Path) -> None:
    with closing(sqlite3.connect(filled, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with registered(filled, busy_timeout_s=0.05) as store:  # nothing new to write
            with refused("store_locked") as caught:
                store.start_run("measure", {"n": 2})
            assert caught.value.retryable
            assert len(store.measurements()) == 60  # readers go on
        holder.execute("ROLLBACK")
    with registered(filled, busy_timeout_s=0.05) as store:
        store.start_run("measure", {"n": 2})


def test_a_new_store_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with refused("store_locked"):
            MeasurementStore.open(path, busy_timeout_s=0.05)


# --- read-only ------------------------------------------------------------------------------------

_ACT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from store_records import blocks_ns, record
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.sqlite import MeasurementStore
path = Path(sys.argv[1])
try:
    with MeasurementStore.open(path, read_only=sys.argv[2] == "ro") as store:
        run = store.start_run("measure", {{}}) if sys.argv[2] == "rw" else store.get_run("last")
        assert store.check() == []
        sys.stdout.write(f"ok {{len(store.measurements())}}")
        if sys.argv[2] == "ro":
            store.add(record(run.id, "more"), blocks_ns(1))
except DataError as exc:
    sys.stdout.write(f" {{exc.code}}")
"""


def act_without_privileges(path: Path, mode: str) -> str:
    """Open the store in a process to which file permissions apply, even for root."""
    command = [sys.executable, "-c", _ACT.format(tests=str(Path(__file__).parent)), path, mode]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root, and no setpriv to give up its rights")
        command = [setpriv, "--bounding-set", "-dac_override", "--", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def sealed(filled: Path) -> Iterator[Path]:
    """A store in a folder that nobody may write to."""
    filled.chmod(0o444)
    filled.parent.chmod(0o555)
    yield filled
    filled.parent.chmod(0o755)


def test_a_read_only_folder(sealed: Path) -> None:
    assert act_without_privileges(sealed, "ro") == "ok 60 store_read_only"
    assert act_without_privileges(sealed, "rw") == " store_read_only"
    assert act_without_privileges(sealed.parent / "new.sqlite", "rw") == " store_read_only"
    assert act_without_privileges(sealed.parent / "new" / "s.sqlite", "rw") == " store_read_only"


def test_an_unclosed_store_in_a_read_only_folder(filled: Path) -> None:
    crashed = filled.parent / "crashed"
    crashed.mkdir()
    with registered(filled) as store:
        store.start_run("measure", {"n": 2})
        for suffix in ("", "-wal"):  # as a kill -9 leaves it
            shutil.copy(f"{filled}{suffix}", crashed / f"{filled.name}{suffix}")
    crashed.chmod(0o555)
    try:
        assert act_without_privileges(crashed / filled.name, "ro") == " store_read_only"
    finally:
        crashed.chmod(0o755)


def test_a_read_only_store_refuses_to_write(filled: Path) -> None:
    with MeasurementStore.open(filled, read_only=True) as store:
        assert len(store.measurements()) == 60
        with pytest.RaisesExc(DataError, check=lambda exc: exc.code == "store_read_only"):
            store.start_run("measure", {"n": 2})


# --- full disks -----------------------------------------------------------------------------------


def test_a_full_disk_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    with registered(tmp_path / "store.sqlite") as store:
        run = store.start_run("measure", {})
        with store.reading() as connection:
            connection.execute("PRAGMA max_page_count = 60")
        stored = []
        with refused("no_space"):
            for number in range(1000):
                store.add(record(run.id, str(number)), blocks_ns(number))
                stored.append(str(number))
        assert stored
        assert list(store.done_items(run.id)) == stored
        assert store.check() == []
        with store.reading() as connection:  # somebody made room
            connection.execute("PRAGMA max_page_count = 100000")
        assert store.add(record(run.id, str(len(stored))), blocks_ns(len(stored)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run([umount, str(disk)], check=True)


def test_a_real_full_disk(small_disk: Path) -> None:
    path = small_disk / "store.sqlite"
    stored = []
    with registered(path) as store:
        run = store.start_run("measure", {})
        with refused("no_space"):
            for number in range(1000):
                store.add(record(run.id, str(number)), blocks_ns(number))
                stored.append(str(number))
        assert stored
        assert list(store.done_items(run.id)) == stored
    with MeasurementStore.open(path) as store:
        assert list(store.done_items(run.id)) == stored
        assert store.check() == []


def test_creating_a_store_on_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    fill(ballast)
    path = small_disk / "store.sqlite"
    with refused("no_space"):
        MeasurementStore.open(path)
    assert not path.exists() or path.stat().st_size == 0
    ballast.unlink()
    with MeasurementStore.open(path) as store:
        assert store.check() == []


def test_exporting_to_a_full_disk_keeps_the_old_file(filled: Path, small_disk: Path) -> None:
    old = small_disk / "table"
    old.write_text("old")
    fill(small_disk / "ballast")
    with MeasurementStore.open(filled) as store:
        for export in (export_csv, export_parquet):
            with refused("no_space"):
                export(store, old)
            assert old.read_text() == "old"
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast", "table"]


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


# --- the rest of the vocabulary -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SQLITE_BUSY_SNAPSHOT", "store_locked"),
        ("SQLITE_LOCKED", "store_locked"),
        ("SQLITE_FULL", "no_space"),
        ("SQLITE_CORRUPT", "store_damaged"),
        ("SQLITE_READONLY_DBMOVED", "store_read_only"),
        ("SQLITE_CANTOPEN", "cannot_open"),
        ("SQLITE_IOERR_READ", "store_io"),
        ("SQLITE_CONSTRAINT", "constraint"),
        ("SQLITE_TOOBIG", "store"),
    ],
)
def test_each_sqlite_error_has_a_code(tmp_path: Path, name: str, code: str) -> None:
    error = sqlite3.OperationalError("it broke")
    error.sqlite_errorcode = getattr(sqlite3, name)
    assert faults.error_of(error, tmp_path / "store.sqlite").code == code
