"""CIFAR-10, CIFAR-100 and ImageNet16-120 from the user's folder, in their original form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.networks.training._pickled import read_pickled_dict
from hwnas_sdk.networks.training.tasks import ImageTask

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (n, C, H, W), labels (n,)

_CIFAR_URL: Final = "https://www.cs.toronto.edu/~kriz"
_SOURCE: Final = {
    "cifar10": f"unpack {_CIFAR_URL}/cifar-10-python.tar.gz in the folder of --data-dir",
    "cifar100": f"unpack {_CIFAR_URL}/cifar-100-python.tar.gz in the folder of --data-dir",
    "imagenet16_120": "it is part of ImageNet16, the Python files of downsampled ImageNet at "
    "https://image-net.org/download-images (16x16)",
}
_FOLDER: Final = {
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "imagenet16_120": "ImageNet16",
}
_TRAIN: Final = {
    "cifar10": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "cifar100": ("train",),
    "imagenet16_120": tuple(f"train_data_batch_{i}" for i in range(1, 11)),
}
_TEST: Final = {"cifar10": "test_batch", "cifar100": "test", "imagenet16_120": "val_data"}
_LABELS: Final = {"cifar10": "labels", "cifar100": "fine_labels", "imagenet16_120": "labels"}


def read_folder(task: ImageTask, data_dir: Path | None) -> tuple[Labelled, Labelled]:
    """Read the official training and test images of a task.

    Args:
        task: one that needs a folder.
        data_dir: holds the unpacked archive, or is its folder itself.

    Raises: ConfigError without a folder; DataError that names the file that is missing or wrong.
    """
    name = task.name
    if data_dir is None:
        raise ConfigError(
            f"{name} needs --data-dir, a folder with its original Python files",
            code="no_data_dir",
            hint=_SOURCE[name],
        )
    folder = data_dir / _FOLDER[name]
    if not folder.is_dir() and (data_dir / _TEST[name]).is_file():
        folder = data_dir
    train = [_read_file(task, folder / file) for file in _TRAIN[name]]
    return _joined(train), _read_file(task, folder / _TEST[name])


def _joined(parts: Sequence[Labelled]) -> Labelled:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _read_file(task: ImageTask, path: Path) -> Labelled:
    """Images and labels of one file; classes of ImageNet16 beyond the first 120 are left out.

    ImageNet16 counts its 1,000 classes from 1; NAS-Bench-201 takes the first 120 of them.
    """
    found = read_pickled_dict(path, source=_SOURCE[task.name])
    images, labels = found.get("data"), _numbers(found.get(_LABELS[task.name]))
    width = int(np.prod(task.shape))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2:
        raise _wrong(task, path, "has no array 'data' of bytes, one row for each image")
    if images.shape[1] != width:
        raise _wrong(task, path, f"has {images.shape[1]} bytes for each image, not {width}")
    if labels is None or labels.shape != (len(images),):
        raise _wrong(task, path, f"has no {_LABELS[task.name]!r}, one for each image")
    if task.name == "imagenet16_120":
        kept = labels <= task.n_classes
        images, labels = images[kept], labels[kept] - 1
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= task.n_classes:
        raise _wrong(task, path, f"has labels outside the {task.n_classes} classes, or none")
    return images.reshape(-1, *task.shape), labels


def _numbers(values: Any) -> NDArray[np.int64] | None:
    """`values` as integers, or None when they are not."""
    if not isinstance(values, (list, np.ndarray)):
        return None
    array = np.asarray(values)
    return array.astype(np.int64) if array.dtype.kind in "iu" else None


def _wrong(task: ImageTask, path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}", code="data_damaged", hint=_SOURCE[task.name])
