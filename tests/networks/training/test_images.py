"""Image files: read in their original form, never run, damage named in one line."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from image_folders import write_cifar10, write_python2_dict, write_python3_dict

from hwnas_sdk.core.errors import ConfigError, DataError, MissingExtraError
from hwnas_sdk.networks.training._pickled import read_pickled_dict
from hwnas_sdk.networks.training.images import load_images
from hwnas_sdk.networks.training.tasks import TASKS, image_task
from hwnas_sdk.spaces import get_space

CIFAR = TASKS["cifar10"]


def test_tasks_are_data_sets_of_the_space() -> None:
    space = get_space("nasbench201")
    for task in TASKS.values():
        graph = space.layers(space.from_index(0), dataset=task.name)
        assert graph.input.shape == task.shape
        assert graph.output.shape == (task.n_classes,)
    with pytest.raises(ConfigError, match=r"unknown task 'mnist' \(one of digits, cifar10"):
        image_task("mnist")


def test_cifar10_of_python_2(tmp_path: Path) -> None:
    test_pixels = write_cifar10(tmp_path, n=8)
    splits = load_images(CIFAR, tmp_path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (36, 4, 8)
    assert np.array_equal(splits.test.pixels.reshape(8, -1), test_pixels)
    inside = load_images(CIFAR, tmp_path / "cifar-10-batches-py")
    assert inside.fingerprint() == splits.fingerprint()
    assert load_images(CIFAR, tmp_path, seed=1).fingerprint() != splits.fingerprint()
    shown = splits.normalise(splits.train.pixels)
    assert shown.dtype == np.float32
    assert np.allclose(shown.mean((0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(shown.std((0, 2, 3)), 1, atol=1e-4)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_imagenet16_of_python_3_keeps_the_first_120_classes(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    names = (*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data")
    for name in names:
        labels = [1, 120, 121, 1000, 7, 8]
        pixels = rng.integers(0, 256, (6, 768)).astype(np.uint8)
        write_python3_dict(
            tmp_path / "ImageNet16" / name, pixels, "labels", labels, protocol=protocol
        )
    splits = load_images(TASKS["imagenet16_120"], tmp_path)
    assert splits.test.labels.tolist() == [0, 119, 6, 7]
    assert np.array_equal(splits.test.pixels.reshape(4, -1), pixels[[0, 1, 4, 5]])
    assert len(splits.train) + len(splits.valid) == 40


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        pixels = np.full((10, 3072), 3, np.uint8)
        path = tmp_path / "cifar-100-python" / name
        write_python2_dict(path, pixels, "fine_labels", list(range(90, 100)))
    splits = load_images(TASKS["cifar100"], tmp_path)
    assert splits.test.labels.tolist() == list(range(90, 100))


class Bomb:
    def __init__(self, what: object, *args: object) -> None:
        self.call = (what, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("what", [os.system, eval, getattr, np.load, np.frombuffer])
def test_nothing_in_a_file_is_run(tmp_path: Path, what) -> None:
    path = tmp_path / "bad"
    path.write_bytes(pickle.dumps({"data": Bomb(what, "touch " + str(tmp_path / "owned"))}))
    with pytest.raises(DataError, match="which an image file has no use for") as caught:
        read_pickled_dict(path, source="get it")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_encodings_other_than_latin1_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.")
    with pytest.raises(DataError, match="'hex' is not allowed"):
        read_pickled_dict(path, source="get it")


def test_damage_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    good = path.read_bytes()
    pixels = np.zeros((8, 3072), np.uint8)
    wrong = {
        "cut": lambda: path.write_bytes(good[:100]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_bytes(b"<html>not found</html>"),
        "list": lambda: path.write_bytes(pickle.dumps([1, 2])),
        "labels": lambda: write_python2_dict(path, pixels, "labels", [0] * 7 + [10]),
        "key": lambda: write_python2_dict(path, pixels, "fine_labels", [0] * 8),
        "count": lambda: write_python2_dict(path, pixels, "labels", [0] * 7),
        "width": lambda: write_python2_dict(path, pixels[:, 1:], "labels", [0] * 8),
        "type": lambda: path.write_bytes(pickle.dumps({"data": [1], "labels": [0]})),
        "gone": path.unlink,
    }
    for name, damage in wrong.items():
        damage()
        with pytest.raises(DataError) as caught:
            load_images(CIFAR, tmp_path)
        text = str(caught.value)
        assert str(path) in text, name
        assert "cifar-10-python.tar.gz" in text, name
        assert "\n" not in text


def test_a_folder_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cifar10 needs --data-dir.*cifar-10-python.tar.gz"):
        load_images(CIFAR)
    with pytest.raises(DataError, match=r"there is no file .*data_batch_1"):
        load_images(CIFAR, tmp_path / "nowhere")


def test_digits() -> None:
    pytest.importorskip("sklearn")
    splits = load_images(TASKS["digits"])
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (1079, 359, 359)
    assert splits.train.pixels.max() == 16
    assert set(splits.test.labels.tolist()) == set(range(10))
    assert splits.fingerprint() == load_images(TASKS["digits"]).fingerprint()


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*hwnas-sdk\[torch\]"):
        load_images(TASKS["digits"])
