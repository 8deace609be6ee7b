from __future__ import annotations

import json

import pytest

from hwnas_sdk.core.errors import ConfigError, ExportError
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.export import tvm_target
from hwnas_sdk.export.tvm_target import (
    TvmTarget,
    device_target,
    host_target,
    linker,
    make_target,
    parse_target,
)


def board(arch: str, soc: str, model: str | None = None) -> DeviceSpec:
    return DeviceSpec(
        id="b@01234567",
        name="b",
        uri="ssh://pi@10.0.0.7",
        family="linux",
        soc=soc,
        cores=4,
        memory_mib=1024,
        machine="bare",
        details={"device": {"arch": arch, "soc": soc, "model": model}},
    )


@pytest.mark.parametrize(
    ("soc", "model", "mcpu"),
    [
        ("BCM2711 (Cortex-A72)", "Raspberry Pi 4 Model B Rev 1.4", "cortex-a72"),
        ("BCM2712", "Raspberry Pi 5 Model B Rev 1.0", "cortex-a76"),
        ("unknown", "Raspberry Pi Zero 2 W Rev 1.0", "cortex-a53"),
        ("4x Cortex-A55 + 4x Cortex-A76", None, "cortex-a76"),
        ("Cortex-A78AE", "NVIDIA Orin NX", "cortex-a78ae"),
        ("tegra234", None, "cortex-a78ae"),
        ("Cortex-A530", None, None),
        ("a chip nobody knows", None, None),
    ],
)
def test_a_board_says_which_processor_it_has(soc: str, model: str | None, mcpu: str | None) -> None:
    target = device_target(board("aarch64", soc, model), threads=2)
    assert target.spec.get("mcpu") == mcpu
    assert target.spec["mtriple"] == "aarch64-linux-gnu"
    assert target.spec["num-cores"] == 2
    assert target.arch == "aarch64"


def test_32_bit_arm_passes_floats_in_float_registers() -> None:
    spec = device_target(board("armv7l", "BCM2835")).spec
    assert spec["mfloat-abi"] == "hard"
    assert spec["mtriple"] == "arm-linux-gnueabihf"


def test_unknown_instruction_sets_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="riscv64") as caught:
        device_target(board("riscv64", "x"))
    assert "aarch64" in caught.value.hint


V2 = "fpu sse4_1 sse4_2 ssse3 popcnt cx16 avx"
V3 = V2 + " avx2 bmi1 bmi2 f16c fma movbe abm"
AVX512 = "avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (V2, "x86-64-v2"),
        (V3, "x86-64-v3"),
        (f"{V3} {AVX512}", "x86-64-v4"),
        (AVX512, "x86-64"),  # AVX-512 without AVX2 is not a level of its own
    ],
)
def test_x86_levels_need_everything_below_them(flags: str, level: str) -> None:
    assert tvm_target._x86_level(f"processor : 0\nflags\t\t: {flags}\n") == level


def test_names_and_json_mean_the_same() -> None:
    named = parse_target("aarch64:cortex-a72")
    given = parse_target(json.dumps(named.spec))
    assert named == given
    assert named.id == given.id
    assert named != parse_target("aarch64:cortex-a53")
    assert parse_target("host") == host_target()


@pytest.mark.parametrize("text", ["{", '{"mcpu": "x"}', "z80", "{}"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert caught.value.code == "unknown_target"


def test_a_missing_cross_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_target.shutil, "which", lambda _name: None)
    monkeypatch.setattr(tvm_target.platform, "machine", lambda: "x86_64")
    with pytest.raises(ExportError, match="aarch64") as caught:
        linker(make_target("aarch64"))
    assert caught.value.code == "cross_compiler_missing"
    assert "g++-aarch64-linux-gnu" in caught.value.hint


def test_the_first_linker_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_target.platform, "machine", lambda: "x86_64")
    for present in ("aarch64-linux-gnu-g++", "clang", "zig"):
        monkeypatch.setattr(
            tvm_target.shutil, "which", lambda name, here=present: name if name == here else None
        )
        assert linker(make_target("aarch64"))[0] == present
    monkeypatch.setattr(tvm_target.shutil, "which", lambda name: name)
    assert linker(make_target("x86_64")) == ["g++"]


def test_a_target_is_named_shortly() -> None:
    assert str(parse_target("aarch64:cortex-a72")) == "aarch64 cortex-a72"
    assert str(TvmTarget.of({"kind": "llvm", "mtriple": "arm-linux-gnueabihf"})) == "armv7 generic"
