"""Networks compiled by TVM, run by the agent on this machine, kept like every other measurement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tvm_networks import tiny_network

from hwnas_sdk.core.errors import DataError, DeviceError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.testing.device import TINY
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.runtime import ArtifactMaker, artifact_maker, check_runtime, session_target


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def spec(**changes: object) -> DeviceSpec:
    fields = {
        "id": "b@01234567",
        "name": "b",
        "uri": "ssh://pi@10.0.0.7",
        "family": "linux",
        "soc": "Cortex-A72",
        "cores": 4,
        "memory_mib": 1024,
        "machine": "bare",
        "details": {"device": {"arch": "aarch64"}},
        **changes,
    }
    return DeviceSpec(**fields)  # type: ignore[arg-type]


def test_onnx_runtime_gets_the_file_as_it_is(lab: Lab) -> None:
    maker = artifact_maker(lab.device("fake://?mode=ok"), settings_preset("quick"), lab.cache)
    assert not maker.compiles
    (target,) = lab.targets(["#100"])
    source = target.make_artifact()
    assert maker.make(source) is source
    ArtifactMaker().close()


def test_a_board_without_the_runtime_is_refused_before_compiling() -> None:
    runtimes = {"tvm": {"error": {"code": "runtime_missing", "message": "not installed"}}}
    lacking = spec(details={"runtimes": runtimes}, runtimes={"ort": "1.31"})
    with pytest.raises(DeviceError, match="has no runtime 'tvm': not installed") as caught:
        check_runtime(lacking, "tvm")
    assert caught.value.code == "runtime_missing"
    assert "hwnas devices setup b" in caught.value.hint
    check_runtime(lacking, "ort")
    check_runtime(spec(runtimes={"tvm": "0.27"}), "tvm")
    check_runtime(spec(), "tvm")  # it did not say


def test_a_driver_may_know_the_target_better() -> None:
    told = spec(details={"tvm_target": "armv7", "device": {"arch": "aarch64"}})
    assert session_target(told).arch == "armv7"
    assert session_target(spec(), threads=3).spec["num-cores"] == 3


def test_profiles_of_two_runtimes_are_kept_apart(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    lab.profile(board, settings=settings_preset("quick"))
    assert lab.stored_profile(board.spec.id)[1].runtime == "ort"
    with pytest.raises(DataError, match="with the runtime tvm") as caught:
        lab.stored_profile(board.spec.id, runtime="tvm")
    assert "--runtime tvm" in caught.value.hint


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_measured_with_tvm_and_compared_with_onnx_runtime(lab: Lab, tmp_path: Path) -> None:
    board = lab.device("local")
    networks = [tiny_network(tmp_path, channels=4), tiny_network(tmp_path, channels=8)]
    tvm, ort = (
        lab.measure(networks, on=board, settings=_settings(runtime)) for runtime in ("tvm", "ort")
    )
    for compiled, plain in zip(tvm, ort, strict=True):
        assert compiled.latency_ms is not None
        assert not {"output_mismatch", "output_unchecked"} & set(compiled.flags)
        assert compiled.details["runtime"]["name"] == "tvm"
        assert compiled.details["runtime"]["tuned"] is False
        assert plain.details["runtime"]["tuned"] is None
        assert compiled.arch_id == plain.arch_id
        assert compiled.artifact_sha256 != plain.artifact_sha256
        assert compiled.settings_id != plain.settings_id
        assert compiled.peak_memory_mib
    assert not _processes_of_this_test()


def _settings(runtime: str):
    from dataclasses import replace

    return replace(TINY, runtime=runtime)


def _processes_of_this_test() -> list[str]:
    """Compilers that are still there: children of ours."""
    import os

    mine = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"hwnas_sdk._tvm.child" in words and int(parent) == os.getpid():
                mine.append(entry.name)
    return mine
