"""Whether wheels can exist for a board, and for which of its interpreters; errors say why not."""

from __future__ import annotations

from typing import Final

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.board_facts import BoardFacts, PythonFacts, Version
from hwnas_sdk.devices.wheels import WheelTarget

OLDEST_GLIBC: Final[Version] = (2, 28)
"""Wheels of ONNX Runtime, numpy and TVM are manylinux_2_28 (some also 2_27)."""

OLDEST_PYTHON: Final[Version] = (3, 8)
"""What the agent needs."""

_MACHINES: Final = ("aarch64", "x86_64")
_64_BIT: Final = (*_MACHINES, "riscv64", "ppc64le", "s390x", "loongarch64", "mips64", "ppc64")
_OWN_RUNTIME: Final = (
    "a runtime from the board's own packages is used when its python3 imports onnxruntime"
)


def candidates(facts: BoardFacts, *, device_id: str) -> list[PythonFacts]:
    """Interpreters an environment can be made from, best first.

    The one the present environment was made from is not preferred here: `set_up` keeps it.
    Raises: DeviceError that says why there is none.
    """
    _check_system(facts, device_id)
    usable = [python for python in facts.pythons if _why_not(python) is None]
    if usable:
        return sorted(usable, key=lambda python: python.version[:2], reverse=True)
    if not facts.pythons:
        raise _python_missing(facts, device_id)
    refused = ", ".join(f"{python.path} ({_why_not(python)})" for python in facts.pythons)
    too_old = all(python.version < OLDEST_PYTHON for python in facts.pythons)
    raise DeviceError(
        f"{device_id!r} has no Python that can be used: {refused}",
        device_id=device_id,
        code="python_too_old" if too_old else "python_missing",
        hint="install Python 3.8 or newer there, or name one: --python PATH",
    )


def target_of(facts: BoardFacts, python: PythonFacts, *, device_id: str) -> WheelTarget:
    """What wheels for `python` have to fit. Raises: DeviceError as `candidates`."""
    _check_system(facts, device_id)
    assert facts.libc_version is not None
    return WheelTarget(python=python.version[:2], machine=facts.machine, glibc=facts.libc_version)


def _check_system(facts: BoardFacts, device_id: str) -> None:
    problem = _problem(facts)
    if problem is None:
        return
    code, what, hint = problem
    raise DeviceError(
        f"{device_id!r} runs {facts.name}: {what}", device_id=device_id, code=code, hint=hint
    )


def _problem(facts: BoardFacts) -> tuple[str, str, str] | None:
    """Code, sentence and hint for a system no wheels exist for."""
    if facts.bits == 32 or (facts.bits is None and facts.machine not in _64_BIT):
        return (
            "os_32bit",
            "a 32-bit system, for which ONNX Runtime has no wheels",
            "install the 64-bit image of the system",
        )
    if facts.machine not in _MACHINES:
        return (
            "machine_unsupported",
            "wheels exist for aarch64 and x86_64 only",
            _OWN_RUNTIME,
        )
    return _libc_problem(facts)


def _libc_problem(facts: BoardFacts) -> tuple[str, str, str] | None:
    match facts.libc:
        case "musl":
            return (
                "musl_unsupported",
                "its C library is musl, wheels need glibc",
                f"{_OWN_RUNTIME} (Alpine: apk add py3-onnxruntime)",
            )
        case "bionic":
            return (
                "libc_unsupported",
                "Android's C library, for which no wheels exist",
                "bring a program built for it: hwnas devices add NAME URI --runner PATH",
            )
        case "glibc" if facts.libc_version is not None and facts.libc_version < OLDEST_GLIBC:
            has = ".".join(str(part) for part in facts.libc_version)
            need = ".".join(str(part) for part in OLDEST_GLIBC)
            return (
                "glibc_too_old",
                f"glibc {has}, wheels need {need} or newer",
                "install a newer release of the system (Debian 10, Ubuntu 20.04 or later)",
            )
        case "unknown" if facts.pythons:
            return (
                "libc_unsupported",
                "its C library is not known, wheels need glibc",
                _OWN_RUNTIME,
            )
        case _:
            return None


def _why_not(python: PythonFacts) -> str | None:
    """Why no environment can be made from `python`."""
    reason = None
    if python.version < OLDEST_PYTHON:
        reason = f"{python.version_text} is older than 3.8"
    elif python.implementation != "cpython":
        reason = f"{python.implementation}, not CPython"
    elif "t" in python.abi_flags:
        reason = "free-threaded, few wheels exist"
    elif python.bits != 64:
        reason = "32-bit"
    elif not python.has_zlib:
        reason = "without zlib"
    return reason


def _python_missing(facts: BoardFacts, device_id: str) -> DeviceError:
    detail = f"; {', '.join(facts.broken)} does not start" if facts.broken else ""
    name = facts.os_name.lower()
    if any(word in name for word in ("debian", "ubuntu", "raspbian", "armbian")):
        hint = "on the board: sudo apt install python3"
    elif any(word in name for word in ("poky", "yocto", "openembedded")):
        hint = "add python3-core, python3-modules to the image"
    else:
        hint = "install Python 3.8 or newer there, or name one: --python PATH"
    return DeviceError(
        f"{device_id!r} ({facts.name}) has no Python{detail}",
        device_id=device_id,
        code="python_missing",
        hint=hint,
    )
