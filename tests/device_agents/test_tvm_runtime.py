"""The agent's TVM runtime where no TVM is needed; running libraries is tested by measuring."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from device_agents import runtimes
from device_agents.runtimes import common, tvm

INPUTS = [["x", [1, 3], "float32"]]


def session(data: bytes, path: Path, inputs: object = INPUTS) -> tvm.Session:
    path.write_bytes(data)
    return tvm.Session(
        data,
        path=str(path),
        threads=1,
        providers=["CPU"],
        spinning=False,
        input_seed=0,
        inputs=inputs,  # type: ignore[arg-type]
    )


def own_head() -> bytes:
    return Path(sys.executable).resolve().read_bytes()[:64]


def test_it_is_one_of_the_agents_runtimes() -> None:
    assert runtimes.known("tvm")
    assert runtimes.load("tvm").NAME == "tvm"


def test_asking_for_the_version_imports_nothing() -> None:
    before = set(sys.modules)
    tvm.installed_version()
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] == "tvm"}


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(common.ModelError, match="shared library") as caught:
        session(b"\x08\x07 an ONNX file", tmp_path / "a.so")
    assert caught.value.code == "model_invalid"


def test_a_library_for_another_processor_is_refused(tmp_path: Path) -> None:
    head = bytearray(own_head())
    head[18:20] = (243).to_bytes(2, "little")  # RISC-V
    with pytest.raises(common.ModelError, match="another instruction set") as caught:
        session(bytes(head), tmp_path / "a.so")
    assert caught.value.code == "model_unsupported"


def test_a_library_cannot_be_asked_for_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(common.ModelError, match="inputs"):
        session(own_head(), tmp_path / "a.so", inputs=None)


def test_the_only_provider_is_the_processor() -> None:
    assert tvm.usable_providers(None) == ["CPU"]
    with pytest.raises(common.ModelError) as caught:
        tvm.usable_providers(["CUDAExecutionProvider"])
    assert caught.value.code == "provider_missing"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "Traceback\n  OSError: dlopen failed: cannot open shared object file",
            "model_unsupported",
        ),
        ("Check failed: (pf != nullptr): Cannot find function main", "model_invalid"),
        ("std::bad_alloc", "no_memory"),
        ("shape mismatch on input 0", "runtime_error"),
    ],
)
def test_what_the_runtime_says_gets_a_code(text: str, code: str) -> None:
    found, message = tvm.failure_of(RuntimeError(text))
    assert found == code
    assert "\n" not in message
