"""Small image folders in the original forms, and images a network can tell apart."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np

from hwnas_sdk.networks.training.images import Images, ImageSplits, make_splits
from hwnas_sdk.networks.training.tasks import TASKS


def write_python2_dict(path: Path, data: np.ndarray, key: str, labels: list[int]) -> None:
    """Write {"data": array, key: labels} byte for byte as Python 2 and its numpy did.

    The originals hold Python 2 strings (opcode U/T), which Python 3 cannot write.
    """

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01" + _int(data.shape[0]) + _int(data.shape[1]) + b"\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(data.tobytes()) + b"tb"
    )
    numbers = b"(l" + b"".join(_int(label) + b"a" for label in labels)
    body = b"\x80\x02}(" + text(b"data") + array + text(key.encode()) + numbers + b"u."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def write_python3_dict(path: Path, data: np.ndarray, key: str, labels: list[int], *, protocol: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": data, key: labels}, protocol=protocol))


def write_cifar10(folder: Path, *, n: int = 8, seed: int = 0) -> np.ndarray:
    """A CIFAR-10 of `n` images per file; returns the pixels of the test file, (n, 3072)."""
    rng = np.random.default_rng(seed)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = rng.integers(0, 10, n).tolist()
        pixels = rng.integers(0, 256, (n, 3072)).astype(np.uint8)
        write_python2_dict(folder / "cifar-10-batches-py" / name, pixels, "labels", labels)
    return pixels


def striped(n: int = 96, *, seed: int = 0) -> ImageSplits:
    """Digit-sized images whose class is the row that is bright: easy, and needs no package."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, n).astype(np.int64)
    pixels = rng.integers(0, 5, (n, 1, 8, 8)).astype(np.uint8)
    pixels[np.arange(n), 0, labels] += 11
    whole = Images(pixels, labels)
    third = n // 3
    return make_splits(
        TASKS["digits"],
        whole.take(slice(0, n - 2 * (third // 2))),
        whole.take(slice(n - 2 * (third // 2), n - third // 2)),
        whole.take(slice(n - third // 2, n)),
    )
