from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.cache import ArtifactCache


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "artifacts")


def put(cache: ArtifactCache, data: bytes = b"data", *, arch_id: str = "test:1") -> Artifact:
    return cache.put(
        data,
        format="onnx",
        arch_id=arch_id,
        folded=True,
        producer="test",
        input_shapes={"x": (1, 3)},
        details={"n": 1},
    )


def files(cache: ArtifactCache) -> list[Path]:
    return [p for p in cache.root.rglob("*") if p.is_file() and p.name != ".lock"]


def make_old(path: Path) -> None:
    then = time.time() - 7200
    os.utime(path, (then, then))


def test_put_and_get(cache: ArtifactCache) -> None:
    artifact = put(cache)
    assert artifact.sha256 == sha256_bytes(b"data")
    assert artifact.size_bytes == 4
    assert artifact.input_shapes == {"x": (1, 3)}
    assert Path(artifact.path) == cache.path(artifact.sha256)
    assert Path(artifact.path).relative_to(cache.root).parts[0] == artifact.sha256[:2]
    assert Path(artifact.path).read_bytes() == b"data"
    for reader in (cache, ArtifactCache(cache.root)):
        assert reader.get(artifact.sha256) == artifact
        assert reader.details(artifact.sha256) == {"n": 1}
    assert cache.get("0" * 64) is None
    assert cache.details("0" * 64) == {}


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    cache = ArtifactCache(tmp_path_factory.mktemp("cache"))
    artifact = put(cache, data)
    again = ArtifactCache(cache.root).get(artifact.sha256)
    assert again == artifact
    assert Path(artifact.path).read_bytes() == data


def test_put_twice_writes_once_and_answers_with_what_was_asked(cache: ArtifactCache) -> None:
    first = put(cache)
    state = Path(first.path).stat()
    assert put(cache, arch_id="other:2") == replace(first, arch_id="other:2")
    assert cache.get(first.sha256) == first
    assert Path(first.path).stat().st_mtime_ns == state.st_mtime_ns
    assert len(files(cache)) == 2


def test_damage_is_noticed_even_after_a_good_read(cache: ArtifactCache) -> None:
    artifact = put(cache)
    path = Path(artifact.path)
    assert cache.get(artifact.sha256) is not None
    for damaged in (b"dat", b"dota", b""):
        path.write_bytes(damaged)
        assert cache.get(artifact.sha256) is None
        assert not path.exists()
        assert put(cache) == artifact
        assert path.read_bytes() == b"data"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 1}', "null"])
def test_a_damaged_description_counts_as_missing(cache: ArtifactCache, text: str) -> None:
    artifact = put(cache)
    Path(artifact.path).with_suffix(".json").write_text(text)
    reader = ArtifactCache(cache.root)
    assert reader.get(artifact.sha256) is None
    assert put(reader) == artifact
    assert ArtifactCache(cache.root).get(artifact.sha256) == artifact


def test_the_description_of_another_file_counts_as_missing(cache: ArtifactCache) -> None:
    one, other = put(cache), put(cache, b"more")
    foreign = Path(other.path).with_suffix(".json").read_text()
    Path(one.path).with_suffix(".json").write_text(foreign)
    assert ArtifactCache(cache.root).get(one.sha256) is None


@pytest.mark.parametrize("bad", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63 + "/"])
def test_only_hashes_name_files(cache: ArtifactCache, bad: str) -> None:
    with pytest.raises(DataError) as caught:
        cache.path(bad)
    assert caught.value.code == "bad_hash"
    with pytest.raises(DataError):
        cache.recall(f"../{bad}")


def test_memo(cache: ArtifactCache) -> None:
    artifact = put(cache)
    key = "0123456789abcdef"
    assert cache.recall(key) is None
    cache.remember(key, artifact.sha256)
    assert ArtifactCache(cache.root).recall(key) == artifact
    (cache.root / "memo" / key).write_bytes(artifact.sha256.encode()[:20])  # after a power cut
    assert cache.recall(key) is None
    cache.remember(key, artifact.sha256)
    Path(artifact.path).unlink()
    assert cache.recall(key) is None


def test_other_formats_are_refused(cache: ArtifactCache) -> None:
    with pytest.raises(DataError, match="'elf'"):
        cache.put(b"", format="elf", arch_id="a", folded=True, producer="p", input_shapes={})


def test_a_compiled_library_keeps_what_it_was_compiled_for(cache: ArtifactCache) -> None:
    put_ = cache.put(
        b"\x7fELF library",
        format="tvm",
        arch_id="a",
        folded=False,
        producer="p",
        input_shapes={"b": (1, 3), "a": (2,)},
        target='{"kind":"llvm"}',
        inputs=[("b", (1, 3), "float32"), ("a", (2,), "int64")],
        tuned=False,
    )
    assert put_.path.endswith(f"{put_.sha256}.so")
    assert put_.inputs[0] == ("b", (1, 3), "float32")
    again = ArtifactCache(cache.root)
    assert again.get(put_.sha256) == put_
    assert again.path(put_.sha256) == Path(put_.path)
    again.gc(keep=())
    assert not Path(put_.path).exists()


def test_gc_keeps_what_is_named(cache: ArtifactCache) -> None:
    one, other = put(cache), put(cache, b"more")
    cache.remember("a" * 16, one.sha256)
    cache.remember("b" * 16, other.sha256)
    make_old(cache.root / "memo" / ("b" * 16))
    report = cache.gc(keep=[one.sha256])
    assert report.n_removed == 4 - 1  # file, description and memo of the other
    assert report.freed_bytes > 4
    assert cache.get(one.sha256) == one
    assert cache.get(other.sha256) is None
    assert cache.recall("a" * 16) == one


def test_gc_takes_damaged_files_and_old_litter_only(cache: ArtifactCache) -> None:
    good, damaged, half = put(cache), put(cache, b"more"), put(cache, b"half")
    Path(damaged.path).write_bytes(b"mor")
    Path(half.path).unlink()  # a writer may be between its two renames
    young, old, folder = (cache.root / "tmp" / name for name in ("young", "old", "folder"))
    young.write_bytes(b"1")
    old.write_bytes(b"1")
    folder.mkdir()
    (folder / "x").write_bytes(b"1")
    make_old(old)
    make_old(folder)
    cache.gc()
    assert cache.get(good.sha256) == good
    assert not Path(damaged.path).exists()
    assert Path(half.path).with_suffix(".json").exists()
    assert [p.name for p in (cache.root / "tmp").iterdir()] == ["young"]
    make_old(Path(half.path).with_suffix(".json"))
    cache.gc()
    assert not Path(half.path).with_suffix(".json").exists()


def test_opening_sweeps_old_litter(cache: ArtifactCache) -> None:
    litter = cache.root / "tmp" / "killed"
    litter.write_bytes(b"half an art")
    ArtifactCache(cache.root)
    assert litter.exists()
    make_old(litter)
    ArtifactCache(cache.root)
    assert not litter.exists()


def test_scratch_is_empty_and_goes_away(cache: ArtifactCache) -> None:
    artifact = put(cache)
    with cache.scratch() as scratch:
        assert scratch.get(artifact.sha256) is None
        inner = put(scratch)
        assert Path(inner.path).exists()
        assert Path(inner.path).stat().st_dev == cache.root.stat().st_dev
    assert not Path(inner.path).exists()
    assert cache.get(artifact.sha256) == artifact


def test_a_root_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written") as caught:
        ArtifactCache(tmp_path / "file" / "artifacts")
    assert caught.value.code == "cache_unwritable"


def test_description_is_readable(cache: ArtifactCache) -> None:
    facts = json.loads(Path(put(cache).path).with_suffix(".json").read_text())
    assert facts["arch_id"] == "test:1"
    assert facts["size_bytes"] == 4
