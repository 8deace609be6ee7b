"""What all runtimes share: checked files, the same inputs, the head of an output."""

from __future__ import annotations

import hashlib
from typing import Any

OUTPUT_VALUES = 64


class ModelError(Exception):
    """A network this runtime cannot measure; `code` as in protocol.ITEM_ERRORS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_artifact(path: str, sha256: str) -> bytes:
    """Return the file's bytes. Raises: ModelError when it is missing or not what was asked for."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as exc:
        raise ModelError("artifact_missing", "%s: %s" % (path, exc.strerror)) from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        message = "%s has SHA-256 %s..., expected %s..." % (path, found[:12], sha256[:12])
        raise ModelError("artifact_corrupt", message)
    return data


def check_shapes(specs: list[tuple[str, list[Any], str]]) -> None:
    """Raise ModelError "dynamic_shape" for an input (name, shape, dtype) without a fixed size."""
    for name, shape, _ in specs:
        for axis, size in enumerate(shape):
            if not isinstance(size, int) or size < 0:
                raise ModelError(
                    "dynamic_shape",
                    "input %r has no fixed size in dimension %d (%s)" % (name, axis, size),
                )


def make_inputs(specs: list[tuple[str, list[int], str]], seed: int) -> dict[str, Any]:
    """Return the arrays fed to inputs (name, shape, numpy type), the same on host and board.

    ``numpy.random.RandomState(seed)`` draws input after input: floats uniform in [-1, 1),
    integers and booleans 0 or 1 (valid as indices). Its stream is frozen in all numpy versions.
    """
    import numpy as np

    generator = np.random.RandomState(seed)
    arrays = {}
    for name, shape, dtype in specs:
        if dtype in ("float16", "float32", "float64"):
            arrays[name] = generator.uniform(-1.0, 1.0, shape).astype(dtype)
        elif dtype == "bool" or dtype.startswith(("int", "uint")):
            arrays[name] = generator.randint(0, 2, shape).astype(dtype)
        else:
            raise ModelError("model_unsupported", "input %r has type %s" % (name, dtype))
    return arrays


def head_of(outputs: list[Any]) -> tuple[list[float | None], bool]:
    """First values of the first numeric array (None: not finite), and whether all are finite."""
    import numpy as np

    arrays = [np.asarray(array) for array in outputs]
    numbers = [array for array in arrays if array.dtype.kind in "fiub"]
    finite = all(bool(np.isfinite(array).all()) for array in numbers)
    if not numbers:
        return [], finite
    head = numbers[0].reshape(-1)[:OUTPUT_VALUES].astype(np.float64)
    return [float(value) if np.isfinite(value) else None for value in head], finite


def common_failure(exc: Exception) -> tuple[str, str] | None:
    """Code and line for what any runtime may raise; None when only the runtime itself knows."""
    text = " ".join(str(exc).split())[:300]
    if isinstance(exc, ModelError):
        return exc.code, text
    if isinstance(exc, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return "no_memory", text or "out of memory"
    return None
