"""Random changes to a batch of images that leave its labels true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_crop(
    pixels: NDArray[np.uint8], padding: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Pad with black and cut a window of the old size at a random place of each image.

    Shapes: (n, C, H, W) in and out.
    """
    if padding == 0:
        return pixels
    n, _, height, width = pixels.shape
    sides = (padding, padding)
    padded = np.pad(pixels, ((0, 0), (0, 0), sides, sides))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    rows, columns = rng.integers(0, 2 * padding + 1, size=(2, n))
    cut: NDArray[np.uint8] = windows[np.arange(n), :, rows, columns]
    return cut


def random_flip(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the images, left to right. Shapes: (n, C, H, W) in and out."""
    mirrored = rng.random(len(pixels)) < 0.5
    return np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)


def cutout(
    images: NDArray[np.float32], length: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Set a square of `length` pixels around a random point of each image to 0, the mean.

    Shapes: (n, C, H, W) in and out; the square may hang over the edge.
    Source: DeVries & Taylor 2017.
    """
    if length == 0:
        return images
    n, _, height, width = images.shape
    masks = []
    for size in (height, width):
        start = rng.integers(0, size, size=(n, 1)) - length // 2
        at = np.arange(size)[None]
        masks.append((at >= start) & (at < start + length))
    inside = masks[0][:, :, None] & masks[1][:, None, :]  # (n, H, W)
    return np.where(inside[:, None], np.float32(0), images)
