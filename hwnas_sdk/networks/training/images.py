"""Images and labels of a task, split the same way every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError, MissingExtraError
from hwnas_sdk.core.ids import content_id, sha256_bytes
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.training.folders import Labelled, read_folder
from hwnas_sdk.networks.training.tasks import ImageTask

VALID_SHARE: Final = 0.1
DIGITS_SHARE: Final = 0.2  # of the digits, for validation and again for the test


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Labelled images.

    Attributes:
        pixels: as in the files, (n, C, H, W) uint8.
        labels: class of each, (n,) int64.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64] | slice) -> Images:
        """Some of them, in the order given."""
        return Images(self.pixels[rows], self.labels[rows])

    def batches(self, size: int) -> Iterator[Images]:
        """All of them in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplits:
    """Images to learn from, to look at while deciding, and to judge by once.

    Attributes:
        task: what they are of.
        train, valid, test: disjoint.
        mean, std: of the training pixels by channel, in the units of the files, (C,).
    """

    task: ImageTask
    train: Images
    valid: Images
    test: Images
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a network sees: (n, C, H, W) float32 with mean 0 and variance 1 by channel."""
        centred = pixels.astype(np.float32) - self.mean[:, None, None]
        return centred / self.std[:, None, None]

    def fingerprint(self) -> str:
        """Equal exactly when images, labels and split are."""
        parts = (self.train, self.valid, self.test)
        hashes = [[sha256_bytes(np.ascontiguousarray(array).tobytes()) for array in
                   (part.pixels, part.labels)] for part in parts]  # fmt: skip
        return content_id([self.task.name, hashes], length=16)


def load_images(task: ImageTask, data_dir: Path | None = None, *, seed: int = 0) -> ImageSplits:
    """Read a task's images and split them.

    The test images are the official ones; a tenth of the training images is kept for validation.
    The digits have no official split: a fifth is for validation and a fifth for the test.

    Args:
        task: see `tasks.TASKS`.
        data_dir: the user's folder; the digits need none.
        seed: of the split. Results are comparable only when it is the same.

    Raises: ConfigError without a needed folder, or with one that is not; DataError for missing or
        damaged files; MissingExtraError for the digits without scikit-learn.
    """
    if data_dir is not None and not task.needs_folder:
        raise ConfigError(
            f"a folder of data is of no use with the {task.name}: they come with the package",
            hint="leave it out, or name the task of those files, for example cifar10",
        )
    rng = child_rng(seed, "images", task.name)
    if task.needs_folder:
        rest, test = (Images(*labelled) for labelled in read_folder(task, data_dir))
        n_valid = round(VALID_SHARE * len(rest))
        order = rng.permutation(len(rest))
    else:
        whole = Images(*_digits())
        n_part = round(DIGITS_SHARE * len(whole))
        order = rng.permutation(len(whole))
        test, rest = whole.take(order[:n_part]), whole.take(order[n_part:])
        n_valid, order = n_part, np.arange(len(rest))
    valid, train = rest.take(order[:n_valid]), rest.take(order[n_valid:])
    if not (len(train) and len(valid) and len(test)):
        raise DataError(
            f"{task.name}: {len(rest)} training and {len(test)} test images are too few to split",
            code="data_damaged",
        )
    return make_splits(task, train, valid, test)


def make_splits(task: ImageTask, train: Images, valid: Images, test: Images) -> ImageSplits:
    """Splits with the statistics of their training images."""
    flat = train.pixels.transpose(1, 0, 2, 3).reshape(train.pixels.shape[1], -1)
    std = np.maximum(flat.std(axis=1, dtype=np.float64), 1e-3)
    mean = flat.mean(axis=1, dtype=np.float64)
    return ImageSplits(task, train, valid, test, mean.astype(np.float32), std.astype(np.float32))


def _digits() -> Labelled:
    """The 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels of 0..16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise MissingExtraError("scikit-learn", "torch", purpose="the digits data set") from exc
    found: Any = load_digits()
    return found.images[:, None].astype(np.uint8), found.target.astype(np.int64)
