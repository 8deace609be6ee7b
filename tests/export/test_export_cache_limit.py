"""The cache's size: what is used least goes first, and nothing that somebody may still need."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.cache_limit import limit_bytes, trim, used_bytes, working_with

KIB = 1024


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "artifacts")


def _put(cache: ArtifactCache, k: int, *, age_s: float = 0.0) -> Artifact:
    artifact = cache.put(
        bytes([k]) * 100 * KIB,
        format="tvm" if k % 2 else "onnx",
        arch_id=f"test:{k}",
        folded=False,
        producer="test",
        input_shapes={"x": (1, 3)},
    )
    path = Path(artifact.path)
    then_s = path.stat().st_mtime - age_s
    for file in (path, path.with_suffix(".json")):
        os.utime(file, (then_s, then_s))
    return artifact


def _left(cache: ArtifactCache, artifacts: list[Artifact]) -> list[int]:
    return [k for k, artifact in enumerate(artifacts) if cache.get(artifact.sha256) is not None]


def test_the_least_recently_used_go_first(cache: ArtifactCache) -> None:
    artifacts = [_put(cache, k, age_s=1000.0 * (4 - k)) for k in range(4)]
    assert used_bytes(cache.root) > 400 * KIB
    ArtifactCache(cache.root).get(artifacts[0].sha256)  # the oldest is used again
    report = trim(cache.root, 250 * KIB)
    assert report.n_removed == 2
    assert report.freed_bytes > 200 * KIB
    assert _left(cache, artifacts) == [0, 3]
    assert used_bytes(cache.root) < 250 * KIB
    assert trim(cache.root, 250 * KIB).n_removed == 0
    assert [path.suffix for path in cache.root.glob("??/*.json")] == [".json"] * 2


def test_a_run_trims_at_its_end_when_it_wrote(
    cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE_MIB", "0.25")
    old = [_put(ArtifactCache(cache.root), k, age_s=1000.0) for k in range(3)]
    with working_with(cache):
        cache.get(old[0].sha256)
    assert _left(cache, old) == [0, 1, 2]  # it only read
    with working_with(cache):
        new = _put(cache, 9)
        assert used_bytes(cache.root) > 400 * KIB  # not before the end
    assert cache.get(new.sha256) is not None
    assert used_bytes(cache.root) <= 0.25 * KIB * KIB


def test_nothing_is_removed_under_another_run(
    cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE_MIB", "0")
    with (cache.root / ".in-use").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with working_with(cache):
            artifact = _put(cache, 1)
        assert cache.get(artifact.sha256) is not None
    with working_with(cache):
        pass
    assert cache.get(artifact.sha256) is None


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HWNAS_CACHE_MIB", raising=False)
    assert limit_bytes() == 2 * 2**30
    monkeypatch.setenv("HWNAS_CACHE_MIB", "100")
    assert limit_bytes() == 100 * 2**20
    for text in ("lots", "-1", "nan", "inf"):
        monkeypatch.setenv("HWNAS_CACHE_MIB", text)
        with pytest.raises(ConfigError, match="HWNAS_CACHE_MIB"):
            limit_bytes()


def test_a_cache_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert used_bytes(tmp_path / "nothing") == 0
