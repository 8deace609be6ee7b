"""A user's own ONNX file: read, judged, made static, stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export._external_data import embed_external_data
from hwnas_sdk.export._runtime_check import check_loads, check_versions
from hwnas_sdk.export._static_shapes import fix_dims, static_inputs
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.onnx import check_model

MAX_BYTES: Final = 2**31 - 1  # protobuf's limit
# (offset, bytes there, what the file is, what to do)
_FOREIGN: Final = (
    (0, b"PK\x03\x04", "a zip archive, perhaps a PyTorch or Keras file", "export it to ONNX first"),
    (0, b"\x80\x02", "a Python pickle, perhaps an old PyTorch file", "export it to ONNX first"),
    (0, b"\x89HDF", "an HDF5 file, perhaps a Keras model", "export it to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx"),
    (4, b"ORTM", "in ONNX Runtime's own .ort format", "use the .onnx it was made from"),
    (0, b"\x1f\x8b", "gzip-compressed", "unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model", "run `git lfs pull`"),
    (0, b"<", "an HTML or XML page", "download it again"),
)


def import_onnx(
    path: Path, *, cache: ArtifactCache, fixed_dims: Mapping[str, int] | None = None
) -> Artifact:
    """Take a user's .onnx file into `cache`, with every input shape static.

    The bytes are stored as they are unless something had to be written into them (`fixed_dims`,
    weights from external files). ``cache.details(sha256)["input_dtypes"]`` has numpy's name of each
    input's element type.

    Args:
        path: the file.
        cache: where it goes; `Artifact.arch_id` is ``file:`` and 12 digits of its hash.
        fixed_dims: sizes for dynamic dimensions: by the dimension's name (``{"N": 1}``), or by
            ``"input:axis"`` where it has none (``{"image:0": 1}``).

    Raises: ExportError for a file that is missing, foreign, truncated, invalid, too big, too new
        for the installed ONNX Runtime, without inputs, or dynamic; DataError from the cache.
    """
    path = Path(path)
    original = _read(path)
    model = _parse(path, original)
    check_versions(path, model)
    changed = embed_external_data(model, path, MAX_BYTES)
    changed |= fix_dims(path, model, fixed_dims or {})
    shapes, dtypes = static_inputs(path, model)
    data = model.SerializeToString(deterministic=True) if changed else original
    try:
        check_model(data)
    except ExportError as exc:
        raise ExportError(f"{path}: {exc.message}", code=exc.code) from exc
    check_loads(path, data)
    opset = _opset(model)
    made_by = " ".join(f"{model.producer_name} {model.producer_version}".split()) or "unknown"
    return cache.put(
        data,
        format="onnx",
        arch_id=f"file:{sha256_bytes(data)[:12]}",
        folded=False,
        producer=f"file by {made_by}, opset {opset} ir {model.ir_version}",
        input_shapes=shapes,
        details={"input_dtypes": dtypes, "file_name": path.name, "rewritten": changed},
    )


def _read(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ExportError(
            f"{path} {what}", code="model_missing", hint="give a path to a .onnx file"
        )
    if path.suffix.lower() != ".onnx":
        raise ExportError(
            f"{path} is not a .onnx file",
            code="not_onnx",
            hint="export the model to ONNX, e.g. with torch.onnx.export(model, example, path)",
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ExportError(
            f"{path} has {size / 2**30:.1f} GiB; a deployable model has less than 2 GiB",
            code="model_too_big",
            hint="quantise it, or measure a smaller part of it",
        )
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ExportError(f"{path} cannot be read: {exc.strerror}", code="model_missing") from exc


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    if not data:
        raise ExportError(f"{path} is empty", code="truncated", hint="copy or export it again")
    for offset, magic, what, todo in _FOREIGN:
        if data[offset : offset + len(magic)] == magic:
            raise ExportError(f"{path} is {what}", code="not_onnx", hint=todo)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as exc:  # protobuf's DecodeError, which has no type information
        # ONNX files start with field 1, the IR version, a small number.
        if data[0] == 0x08 and len(data) > 1 and 0 < data[1] < 64:
            raise ExportError(
                f"{path} breaks off or is damaged after {len(data)} bytes",
                code="truncated",
                hint="copy or export it again",
            ) from exc
        raise ExportError(
            f"{path} is not an ONNX file", code="not_onnx", hint="export the model to ONNX first"
        ) from exc
    if not model.ir_version or not model.HasField("graph"):
        raise ExportError(
            f"{path} is not an ONNX file", code="not_onnx", hint="export the model to ONNX first"
        )
    if not model.opset_import or not model.graph.output:
        raise ExportError(
            f"{path} breaks off or is damaged: it has no operator set or no outputs",
            code="truncated",
            hint="copy or export it again",
        )
    return model


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
