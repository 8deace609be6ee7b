"""A user's .tflite file is stored as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.tflite import import_tflite

CONTENT = b"\x1c\x00\x00\x00TFL3" + bytes(range(100))


def test_file_is_kept_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(CONTENT)
    cache = ArtifactCache(tmp_path / "cache")
    artifact = import_tflite(path, cache=cache)
    assert (artifact.format, artifact.size_bytes) == ("tflite", len(CONTENT))
    assert artifact.arch_id == f"file:{artifact.sha256[:12]}"
    assert Path(artifact.path).read_bytes() == CONTENT
    assert Path(artifact.path).suffix == ".tflite"
    assert import_tflite(path, cache=cache) == artifact


def test_anything_else_is_refused(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "cache")
    path = tmp_path / "net.tflite"
    with pytest.raises(ExportError) as caught:
        import_tflite(path, cache=cache)
    assert caught.value.code == "model_missing"
    path.write_bytes(b"ONNX or so")
    with pytest.raises(ExportError) as caught:
        import_tflite(path, cache=cache)
    assert caught.value.code == "not_tflite"
