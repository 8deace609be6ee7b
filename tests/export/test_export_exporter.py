from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hwnas_sdk.core.errors import ExportError, SpaceError
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture, export_cold
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
ARCH = SPACE.sample(1, seed=1)[0]
DEAD = SPACE.architecture((0,) * 6)


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "artifacts")


def test_artifact_says_what_it_is_and_runs(cache: ArtifactCache) -> None:
    artifact = export_architecture(SPACE, ARCH, cache=cache, folded=True, batch=2)
    assert artifact.arch_id == ARCH.id
    assert artifact.folded
    assert artifact.format == "onnx"
    assert "opset 13" in artifact.producer
    assert artifact.input_shapes == {"input": (2, 3, 32, 32)}
    assert artifact.size_bytes == Path(artifact.path).stat().st_size
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.ones((2, 3, 32, 32), np.float32)})
    assert output.shape == (2, 10)
    assert np.isfinite(output).all()


def test_a_repeat_is_a_look_up(cache: ArtifactCache) -> None:
    first = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    times_s = []
    for _ in range(9):
        start = time.perf_counter()
        assert export_architecture(SPACE, ARCH, cache=cache, folded=False) == first
        times_s.append(time.perf_counter() - start)
    assert statistics.median(times_s) < 0.05  # 0.1 ms on a quiet machine


def test_a_new_cache_object_finds_it(cache: ArtifactCache) -> None:
    first = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    state = Path(first.path).stat().st_mtime_ns
    again = export_architecture(SPACE, ARCH, cache=ArtifactCache(cache.root), folded=False)
    assert again == first
    assert Path(first.path).stat().st_mtime_ns == state


def test_what_changes_the_file_changes_the_hash(cache: ArtifactCache) -> None:
    variants = [
        {"folded": False},
        {"folded": True},
        {"folded": False, "seed": 1},
        {"folded": False, "batch": 2},
        {"folded": False, "dataset": "cifar100"},
        {"folded": False, "dataset": "imagenet16_120"},
    ]
    hashes = {export_architecture(SPACE, ARCH, cache=cache, **v).sha256 for v in variants}
    assert len(hashes) == len(variants)
    default = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    named = export_architecture(SPACE, ARCH, cache=cache, folded=False, dataset="cifar10")
    assert default.sha256 == named.sha256


def test_equal_graphs_of_two_architectures_are_told_apart(cache: ArtifactCache) -> None:
    # Node 1 reaches nothing in either cell, so their folded graphs are equal.
    one, other = SPACE.architecture((2, 1, 0, 1, 0, 1)), SPACE.architecture((3, 1, 0, 1, 0, 1))
    assert SPACE.layers(one, folded=True).id == SPACE.layers(other, folded=True).id
    for arch in (one, other, one):
        artifact = export_architecture(SPACE, arch, cache=cache, folded=True)
        assert artifact.arch_id == arch.id


def test_given_weights_are_used(cache: ArtifactCache) -> None:
    weights = dict(random_weights(SPACE.layers(ARCH), seed=0))
    usual = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    weights["head.linear.bias"] = np.full(10, 7, np.float32)
    given = export_architecture(SPACE, ARCH, cache=cache, folded=False, weights=weights)
    assert given.sha256 != usual.sha256
    assert "given" in given.producer
    del weights["head.linear.bias"]
    with pytest.raises(ExportError, match=r"head\.linear\.bias"):
        export_architecture(SPACE, ARCH, cache=cache, folded=False, weights=weights)


def test_dead_cells_are_refused_folded_and_exported_unfolded(cache: ArtifactCache) -> None:
    with pytest.raises(SpaceError) as caught:
        export_architecture(SPACE, DEAD, cache=cache, folded=True)
    assert caught.value.code == "dead_cell"
    assert not export_architecture(SPACE, DEAD, cache=cache, folded=False).folded


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_artifact_is_exported_again(cache: ArtifactCache, damage: str) -> None:
    first = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    path = Path(first.path)
    good = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(good[:-100])
    elif damage == "flip":
        path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    else:
        path.unlink()
    assert export_architecture(SPACE, ARCH, cache=cache, folded=False) == first
    assert path.read_bytes() == good


def test_cold_export_is_timed_and_leaves_nothing(cache: ArtifactCache) -> None:
    usual = export_architecture(SPACE, ARCH, cache=cache, folded=False)
    before = sorted(p for p in cache.root.rglob("*") if p.is_file())
    cold = export_cold(SPACE, ARCH, cache=cache, folded=False)
    assert (cold.sha256, cold.size_bytes) == (usual.sha256, usual.size_bytes)
    assert list(cold.stages_s) == ["graph", "weights", "emit", "check", "store"]
    assert cold.duration_s == pytest.approx(sum(cold.stages_s.values()))
    assert sorted(p for p in cache.root.rglob("*") if p.is_file()) == before
