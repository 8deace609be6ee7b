"""A user's own .tflite file, for boards that are measured with LiteRT's `benchmark_model`.

This package cannot make or run such a file; it is stored as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.cache import ArtifactCache

_MAGIC: Final = b"TFL3"
"""FlatBuffers' file identifier, at byte 4; source: LiteRT's schema.fbs."""


def import_tflite(path: Path, *, cache: ArtifactCache) -> Artifact:
    """Take a user's .tflite file into `cache`.

    Raises: ExportError when it is missing or something else; DataError from the cache.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise ExportError(
            f"{path} cannot be read: {exc.strerror}",
            code="model_missing",
            hint="give a path to a .tflite file",
        ) from exc
    if data[4:8] != _MAGIC:
        raise ExportError(
            f"{path} is not a TensorFlow Lite model",
            code="not_tflite",
            hint="convert the model with ai-edge-torch or TensorFlow's converter",
        )
    return cache.put(
        data,
        format="tflite",
        arch_id=f"file:{sha256_bytes(data)[:12]}",
        folded=False,
        producer="file by unknown, tflite",
        input_shapes={},
        details={"file_name": Path(path).name},
    )
