"""Reading the public image files, which are Python pickles, without running what is in them.

A pickle is a program. This one may build dicts, lists, numbers, text, bytes and numpy arrays of
numbers; whatever else it names is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwnas_sdk.core.errors import DataError

# The two functions numpy's arrays are rebuilt with, whatever its private modules are called.
_ARRAY: Final[Any] = np.zeros(1, np.uint8)
_RECONSTRUCT: Final[Callable[..., Any]] = _ARRAY.__reduce__()[0]
_FROM_BUFFER: Final[Callable[..., Any]] = _ARRAY.__reduce_ex__(5)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in protocols up to 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    # numpy 2 moved its private modules; files written before and after name different ones.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return one of a few harmless callables. Raises: UnpicklingError for any other name."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module_name}.{global_name}, which an image file has no use for"
            ) from None


def read_pickled_dict(path: Path, *, source: str) -> dict[str, Any]:
    """Read a file that holds one pickled dict; its keys come back as text.

    Args:
        path: the file.
        source: where to get a good one, for the error.

    Raises: DataError that names the file: missing, damaged, or not just data.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", code="data_missing", hint=source) from None
    except OSError as exc:
        raise DataError(
            f"cannot read {path}: {exc.strerror}", code="data_missing", hint=source
        ) from exc
    try:
        # Python 2 wrote the original files: its strings are bytes.
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as exc:  # a damaged pickle can raise anything
        reason = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise DataError(
            f"{path} cannot be read: {reason}", code="data_damaged", hint=source
        ) from exc
    if not isinstance(found, dict):
        raise DataError(
            f"{path} holds a {type(found).__name__}, not a dict", code="data_damaged", hint=source
        )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value
            for key, value in found.items()}  # fmt: skip
