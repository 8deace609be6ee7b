from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.networks.training.augment import cutout, random_crop, random_flip


def images(n: int = 40, size: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (n, 2, size, size)).astype(np.uint8)


@given(st.integers(0, 2**32), st.integers(0, 3))
def test_a_crop_is_a_window_of_the_padded_image(seed: int, padding: int) -> None:
    before = images(3)
    after = random_crop(before, padding, np.random.default_rng(seed))
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(before, sides)
    assert after.shape == before.shape
    for image, source in zip(after, padded, strict=True):
        steps = range(2 * padding + 1)
        windows = [source[:, i : i + 6, j : j + 6] for i in steps for j in steps]
        assert any(np.array_equal(image, window) for window in windows)


def test_half_is_mirrored() -> None:
    before = images(400)
    after = random_flip(before, np.random.default_rng(0))
    mirrored = (after == before[..., ::-1]).all((1, 2, 3))
    same = (after == before).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


@given(st.integers(0, 2**32), st.integers(0, 6))
def test_cutout_blanks_one_square(seed: int, length: int) -> None:
    before = images(5).astype(np.float32)
    after = cutout(before, length, np.random.default_rng(seed))
    blank = after == 0
    assert (blank | (after == before)).all()
    assert (blank[:, :1] == blank).all()  # the same in every channel
    for one in blank[:, 0]:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert one.sum() == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= length
        assert min(len(rows), len(columns)) >= length // 2
