from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.files import write_bytes_atomic, write_text_atomic


def test_replaces_whole_files_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    assert write_text_atomic(path, "eins") == path
    write_text_atomic(path, "zwei")
    assert path.read_text() == "zwei"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    for target in (blocker / "below.txt", Path("/proc/no/such.txt")):
        with pytest.raises(DataError, match="cannot write"):
            write_bytes_atomic(target, b"data")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        write_bytes_atomic(folder, b"data")
    assert caught.value.code == "not_writable"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdopen

    def full(descriptor: int, mode: str) -> object:
        os.close(descriptor)
        return real(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(DataError) as caught:
        write_bytes_atomic(tmp_path / "x", b"data" * 10_000)
    assert caught.value.code == "no_space"
    assert list(tmp_path.iterdir()) == []
