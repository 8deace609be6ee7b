"""What boards say of themselves, and what is made of it.

The values come from documentation and public bug reports of the systems named (output of `getconf`,
`ldd --version`, `df -Pk` there); the frame around them is our own command's. None was recorded from
such a board by us, except "this machine", which is asked for real.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from local_board import BASE_PYTHON, WORK, LocalShell

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.board_facts import BoardFacts, ask_board, facts_command, parse_facts
from hwnas_sdk.devices.board_system import candidates, target_of


def _text(**fields: str) -> str:
    """The answer of a board; fields not given are those of an up-to-date system."""
    values = {
        "machine": "aarch64",
        "long_bit": "64",
        "glibc": "glibc 2.36",
        "ldd": "ldd (Debian GLIBC 2.36-9+rpt2+deb12u7) 2.36",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "work": "/home/pi/.local/share/hwnas",
        "df": "/dev/mmcblk0p2  30369068 5236716  23847052      19% /",
        **fields,
    }
    lines = [f"{key}={line}" for key, text in values.items() for line in text.split("\n")]
    return "\n".join(["hwnas-facts 1", *lines, "hwnas-facts end", ""])


def _python(version: str, path: str = "/usr/bin/python3", **changes: str) -> str:
    fields = {
        "path": path,
        "executable": path,
        "version": version,
        "bits": "64",
        "implementation": "cpython",
        "flags": "",
        "libc": "glibc 2.36",
        "zlib": "1",
        "runtime": "",
        **changes,
    }
    return "\t".join(fields.values())


PI_OS_64 = _text(python=_python("3.11.2"))
# Raspberry Pi OS 32-bit starts a 64-bit kernel on a Pi 4 since 2023.
PI_OS_32 = _text(
    long_bit="32",
    os="Raspbian GNU/Linux 12 (bookworm)",
    ldd="ldd (Debian GLIBC 2.36-9+rpt2+deb12u7) 2.36",
    python=_python("3.11.2", bits="32"),
)
PI_ZERO = _text(
    machine="armv6l", long_bit="32", os="Raspbian GNU/Linux 11 (bullseye)", glibc="glibc 2.31"
)
DEBIAN_9 = _text(
    machine="x86_64",
    glibc="glibc 2.24",
    ldd="ldd (Debian GLIBC 2.24-11+deb9u4) 2.24",
    os="Debian GNU/Linux 9 (stretch)",
    python=_python("3.5.3", libc="glibc 2.24"),
)
JETPACK_5 = _text(
    glibc="glibc 2.31",
    ldd="ldd (Ubuntu GLIBC 2.31-0ubuntu9.14) 2.31",
    os="Ubuntu 20.04.6 LTS",
    python=_python("3.8.10", libc="glibc 2.31", runtime="onnxruntime-gpu 1.18.0"),
)
JETPACK_4 = _text(
    glibc="glibc 2.27",
    ldd="ldd (Ubuntu GLIBC 2.27-3ubuntu1.6) 2.27",
    os="Ubuntu 18.04.6 LTS",
    python=_python("3.6.9", libc="glibc 2.27"),
)
ALPINE = _text(
    glibc="",
    ldd="musl libc (aarch64)",
    musl_loader="/lib/ld-musl-aarch64.so.1",
    os="Alpine Linux v3.20",
    python=_python("3.12.7", libc=""),
)
# Poky's core-image-minimal: busybox, no getconf, no ldd, no Python.
YOCTO = _text(
    long_bit="",
    glibc="",
    ldd="sh: ldd: not found",
    os="Poky (Yocto Project Reference Distro) 4.0.15 (kirkstone)",
    work="/home/pi/.local/share/hwnas",
    df="/dev/root                 1952232     89120   1745928   5% /",
)
TERMUX = _text(
    glibc="",
    ldd="sh: ldd: not found",
    os="",
    bionic_loader="/system/bin/linker64\n/system/bin/linker",
    work="/data/local/tmp/hwnas",
    df="/dev/block/dm-43  111812976 21354424  90327480  20% /data/user/0",
    python=_python("3.12.7", "/data/data/com.termux/files/usr/bin/python3", libc=""),
)
RISCV = _text(machine="riscv64", os="Debian GNU/Linux 13 (trixie)", python=_python("3.13.5"))


@pytest.mark.parametrize(
    ("text", "bits", "libc", "version", "free_mib"),
    [
        (PI_OS_64, 64, "glibc", (2, 36), 23288),
        (PI_OS_32, 32, "glibc", (2, 36), 23288),
        (JETPACK_5, 64, "glibc", (2, 31), 23288),
        (ALPINE, 64, "musl", None, 23288),
        (YOCTO, None, "unknown", None, 1705),
        (TERMUX, 64, "bionic", None, 88210),
    ],
)
def test_systems_are_told_apart(
    text: str, bits: int | None, libc: str, version: tuple[int, ...] | None, free_mib: int
) -> None:
    facts = parse_facts(text)
    assert (facts.bits, facts.libc, facts.libc_version) == (bits, libc, version)
    assert facts.free_mib == free_mib
    assert facts.raw == text


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (PI_OS_32, "os_32bit", ["Raspbian", "aarch64", "64-bit image"]),
        (PI_ZERO, "os_32bit", ["armv6l"]),
        (DEBIAN_9, "glibc_too_old", ["glibc 2.24", "2.28"]),
        (JETPACK_4, "glibc_too_old", ["glibc 2.27", "Ubuntu 18.04"]),
        (ALPINE, "musl_unsupported", ["musl", "py3-onnxruntime"]),
        (YOCTO, "python_missing", ["Poky", "python3-modules"]),
        (TERMUX, "libc_unsupported", ["Android", "--runner PATH"]),
        (RISCV, "machine_unsupported", ["riscv64", "aarch64"]),
        (_text(), "python_missing", ["apt install python3"]),
        (_text(broken="/opt/bin/python3"), "python_missing", ["/opt/bin/python3 does not start"]),
        (_text(python=_python("3.7.3")), "python_too_old", ["3.7.3", "3.8"]),
        (_text(python=_python("3.11.2", implementation="pypy")), "python_missing", ["pypy"]),
        (_text(python=_python("3.13.0", flags="t")), "python_missing", ["free-threaded"]),
        (_text(python=_python("3.11.2", zlib="0")), "python_missing", ["zlib"]),
        (
            _text(glibc="", ldd="", python=_python("3.11.2", libc="")),
            "libc_unsupported",
            ["not known"],
        ),
    ],
)
def test_what_cannot_be_set_up_says_why(text: str, code: str, words: list[str]) -> None:
    with pytest.raises(DeviceError) as exc:
        candidates(parse_facts(text, device_id="shelf"), device_id="shelf")
    assert exc.value.code == code
    assert "'shelf'" in exc.value.message
    assert all(word in str(exc.value) for word in words), str(exc.value)


def test_the_newest_python_that_can_be_used_comes_first() -> None:
    pythons = "\n".join(
        [
            _python("3.9.2"),
            _python("3.13.1", "/opt/a/python3"),
            _python("3.14.0", "/opt/b/python3", flags="t"),
            _python("3.7.3", "/opt/c/python3"),
        ]
    )
    facts = parse_facts(_text(python=pythons))
    found = candidates(facts, device_id="shelf")
    assert [python.version_text for python in found] == ["3.13.1", "3.9.2"]
    target = target_of(facts, found[1], device_id="shelf")
    assert target.tag == "cp39-glibc2.36-aarch64"
    assert target.platforms[0] == "manylinux_2_36_aarch64"
    assert target.platforms[-2:] == ("manylinux_2_17_aarch64", "manylinux2014_aarch64")


def test_one_interpreter_under_two_names_counts_once() -> None:
    twice = "\n".join(
        [_python("3.11.2"), _python("3.11.2", "/bin/python3", executable="/usr/bin/python3")]
    )
    assert len(parse_facts(_text(python=twice)).pythons) == 1


def test_the_c_library_is_known_from_python_where_nothing_else_says_it() -> None:
    facts = parse_facts(_text(long_bit="", glibc="", ldd="", python=_python("3.11.2")))
    assert (facts.bits, facts.libc, facts.libc_version) == (64, "glibc", (2, 36))


def test_a_talkative_login_does_not_disturb() -> None:
    noisy = f"Welcome to the lab!\r\n{PI_OS_64}logout\n"
    assert parse_facts(noisy).machine == "aarch64"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sh: 1: Syntax error\n",
        PI_OS_64.replace("hwnas-facts end", ""),
        _text(glibc="glibc two"),
        _text(long_bit="sixty-four"),
        _text(work="relative/folder"),
        _text(machine=""),
        _text(df="df: no such file"),
        _text(python="/usr/bin/python3"),
        _text(python=_python("3.11")),
        _text().replace("os=", "o s="),
    ],
)
def test_what_is_not_understood_is_quoted_not_guessed(text: str) -> None:
    with pytest.raises(DeviceError) as exc:
        parse_facts(text, device_id="shelf")
    assert exc.value.code == "parse_failed"
    assert "'shelf'" in exc.value.message


def test_this_machine_answers(tmp_path: Path) -> None:
    facts = ask_board(LocalShell(tmp_path), work=WORK, python=BASE_PYTHON)
    assert isinstance(facts, BoardFacts)
    assert facts.work == str(tmp_path / "hwnas")
    assert facts.bits == 64
    assert facts.free_mib
    assert facts.env == ""
    (python,) = facts.pythons
    assert python.version == sys.version_info[:3]
    assert python.runtime == ""


def test_all_interpreters_are_looked_for_unless_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, version in (("python3", "3.9.1"), ("python3.12", "3.12.0")):
        fields = _python(version, str(folder / name)).partition("\t")[2]
        (folder / name).write_text(f"#!/bin/sh\nprintf '{fields}'")
    (folder / "python3.8").write_text("#!/bin/sh\nexit 1\n")
    (folder / "python3-config").write_text("#!/bin/sh\necho this is no interpreter\n")
    for path in folder.iterdir():
        path.chmod(0o755)
    shell = LocalShell(tmp_path)
    shell.environ["PATH"] = f"{folder}:/usr/bin:/bin"
    facts = parse_facts(shell.run(facts_command(work=WORK)).text + "\n")
    assert [python.version_text for python in facts.pythons][:2] == ["3.9.1", "3.12.0"]
    assert str(folder / "python3.8") in facts.broken
    named = ask_board(shell, work=WORK, python=str(folder / "python3.12"))
    assert [python.version_text for python in named.pythons] == ["3.12.0"]
    assert named.broken == ()
