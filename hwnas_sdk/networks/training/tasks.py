"""What a candidate can be trained to do, and how it usually is. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hwnas_sdk.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """A classification task; `name` is also the data set a search space builds networks for.

    Attributes:
        name: as typed.
        n_classes: classes of the labels.
        shape: (C, H, W) of one image.
        pixel_max: largest value of a pixel in the files.
        flip: whether a mirrored image is as good as the image (photographs, not digits).
        epochs, batch_size, learning_rate: what a training does unless told otherwise.
        needs_folder: whether the user has to bring the files.
    """

    name: str
    n_classes: int
    shape: tuple[int, int, int]
    pixel_max: int = 255
    flip: bool = True
    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    needs_folder: bool = True

    @property
    def padding(self) -> int:
        """Pixels a random crop may shift by: 4 at 32 x 32, 2 at 16 x 16, 1 at 8 x 8."""
        return self.shape[1] // 8


TASKS: Final[dict[str, ImageTask]] = {
    task.name: task
    for task in (
        ImageTask(
            name="digits",
            n_classes=10,
            shape=(1, 8, 8),
            pixel_max=16,
            flip=False,
            epochs=20,
            batch_size=64,
            needs_folder=False,
        ),
        ImageTask(name="cifar10", n_classes=10, shape=(3, 32, 32)),
        ImageTask(name="cifar100", n_classes=100, shape=(3, 32, 32)),
        ImageTask(name="imagenet16_120", n_classes=120, shape=(3, 16, 16)),
    )
}
"""Epochs, batch and rate of the last three: the recipe behind NAS-Bench-201's accuracies."""


def image_task(name: str) -> ImageTask:
    """Return the task called `name`. Raises: ConfigError for an unknown one."""
    try:
        return TASKS[name]
    except KeyError:
        raise ConfigError(
            f"unknown task {name!r}", code="unknown_task", hint=f"one of {', '.join(TASKS)}"
        ) from None
