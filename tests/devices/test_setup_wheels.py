"""Wheels for a board; the package index is a folder, so all of it is offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from local_board import make_runtime_wheels, make_wheel

from hwnas_sdk.core.errors import ConfigError, DataError, DeviceError
from hwnas_sdk.devices import wheels as module
from hwnas_sdk.devices.wheels import (
    WheelStore,
    WheelTarget,
    package_name,
    requirements,
)

TARGET = WheelTarget(python=(3, 11), machine="aarch64", glibc=(2, 36))
WANTED = ("onnxruntime", "numpy")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, the only one pip knows."""
    simple = tmp_path / "simple"
    files = make_runtime_wheels(tmp_path / "files")
    _publish(simple, files)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", simple.as_uri())
    return simple


def _publish(simple: Path, files: Path) -> None:
    for wheel in files.glob("*.whl"):
        page = simple / package_name(wheel.name.split("-")[0]) / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        links = [f'<a href="{path.as_uri()}">{path.name}</a>' for path in files.glob("*.whl")]
        page.write_text("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>")


def _versions(store: WheelStore, **options: object) -> dict[str, str]:
    with store.wheels(WANTED, TARGET, **options) as found:  # type: ignore[arg-type]
        assert all(wheel.path.is_file() for wheel in found)
        assert all(wheel.size_bytes > 0 < wheel.unpacked_bytes for wheel in found)
        return {wheel.package: wheel.version for wheel in found}


def test_wheels_are_fetched_once_and_again_when_asked(index: Path, tmp_path: Path) -> None:
    store = WheelStore(tmp_path / "kept")
    assert store.size_bytes() == 0
    here = tmp_path / "kept" / TARGET.tag
    old, new = here / ".new-old", here / ".new-new"  # of downloads that were killed
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    assert _versions(store) == {"onnxruntime": "9.0.0", "numpy": "9.9.9"}
    assert store.size_bytes() > 0
    make_runtime_wheels(tmp_path / "files", "9.1.0")
    _publish(index, tmp_path / "files")
    assert _versions(store)["onnxruntime"] == "9.0.0"
    assert _versions(store, upgrade=True)["onnxruntime"] == "9.1.0"
    assert not old.exists()
    assert new.exists()
    kept = sorted(path.name for path in here.glob("*.whl"))
    assert kept == ["numpy-9.9.9-py3-none-any.whl", "onnxruntime-9.1.0-py3-none-any.whl"]


@pytest.mark.usefixtures("index")
def test_a_damaged_wheel_is_fetched_again(tmp_path: Path) -> None:
    store = WheelStore(tmp_path / "kept")
    _versions(store)
    wheel = tmp_path / "kept" / TARGET.tag / "onnxruntime-9.0.0-py3-none-any.whl"
    good = wheel.read_bytes()
    for damage in (good[:-20], good.replace(b"9.0.0", b"9.0.1")):
        wheel.write_bytes(damage)
        _versions(store)
        assert wheel.read_bytes() == good


def test_wheels_for_the_board_not_for_this_host(index: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_aarch64",
                "cp311-cp311-manylinux_2_39_aarch64", "cp311-cp311-musllinux_1_2_aarch64",
                "cp311-cp311-win_arm64"):  # fmt: skip
        make_wheel(files, "onnxruntime", "9.7.0", {}, tag=tag)
    make_wheel(files, "onnxruntime", "9.5.0", {}, tag="cp311-cp311-manylinux_2_27_aarch64")
    _publish(index, files)
    assert _versions(WheelStore(tmp_path / "kept"))["onnxruntime"] == "9.5.0"


@pytest.mark.usefixtures("index")
def test_a_folder_is_used_instead_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    folder = make_runtime_wheels(tmp_path / "stick", "8.0.0")
    store = WheelStore(tmp_path / "kept")
    assert _versions(store, folder=folder)["onnxruntime"] == "8.0.0"
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("index")
def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    store = WheelStore(tmp_path / "kept")
    with (
        pytest.raises(
            DeviceError, match=r"no wheel of tvm9 for CPython 3\.11, aarch64, glibc 2.36"
        ) as e,
        store.wheels(("tvm9",), TARGET, device_id="shelf"),
    ):
        pass
    assert (e.value.code, e.value.device_id) == ("wheels_missing", "shelf")
    assert list((tmp_path / "kept" / TARGET.tag).glob("*.whl")) == []


def test_no_internet_says_what_was_looked_for_and_what_to_do() -> None:
    """pip's own words for it; asking a dead address for real takes pip seconds of retries."""
    stderr = (
        "WARNING: Retrying (Retry(total=1, connect=None, read=None, redirect=None, status=None)) "
        "after connection broken by 'NewConnectionError(\"HTTPConnection(host='127.0.0.1', "
        "port=9): Failed to establish a new connection: [Errno 111] Connection refused\")': "
        "/simple/numpy/\nERROR: Could not find a version that satisfies the requirement numpy "
        "(from versions: none)\nERROR: No matching distribution found for numpy\n"
    )
    error = module._why(stderr, TARGET, None, "shelf")
    assert isinstance(error, ConfigError)
    assert error.code == "download_failed"
    assert "numpy for CPython 3.11, aarch64" in error.message
    assert "Connection refused" in error.message
    assert "--wheels DIR" in error.hint
    assert "--platform manylinux_2_28_aarch64" in error.hint
    no_pip = module._why("/usr/bin/python3: No module named pip\n", TARGET, None, "shelf")
    assert no_pip.code == "pip_missing"
    other = module._why("ERROR: something else\n", TARGET, None, "shelf")
    assert (other.code, "something else" in other.message) == ("download_failed", True)


@pytest.mark.usefixtures("index")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be kept in"):
        _versions(WheelStore(tmp_path / "file"))


def test_requirements() -> None:
    assert requirements("ort") == ("onnxruntime", "numpy")
    tvm = requirements("tvm")
    assert "apache-tvm==0.27.0.post1" in tvm
    assert any(text.startswith("apache-tvm-ffi") and "0.1.14" in text for text in tvm)
    assert {"tornado", "psutil", "cloudpickle"} <= set(requirements("tvm", rpc=True)) - set(tvm)
    with pytest.raises(ConfigError, match="unknown runtime"):
        requirements("ncnn")


def test_a_download_without_end_is_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DOWNLOAD_TIMEOUT_S", 0.01)
    with pytest.raises(ConfigError, match="were not downloaded in") as caught:
        _versions(WheelStore(tmp_path / "kept"))
    assert caught.value.code == "download_failed"
    assert "--wheels DIR" in caught.value.hint
