"""What TVM compiles for: an instruction set, a processor, a number of cores, a linker.

A target is derived from what a board says of itself; no TVM is needed for that.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.errors import ConfigError, ExportError
from hwnas_sdk.core.ids import canonical_json, content_id
from hwnas_sdk.core.types import DeviceSpec

NAMES: Final = ("host", "aarch64", "armv7", "x86_64")

# LLVM's names by what a probe calls the processor; the strongest core of a big.LITTLE pair first,
# because measurements are pinned to it. A76 and A78 have dot products, A53 and A72 do not.
_ARM_CORES: Final = (
    "cortex-x2", "cortex-x1", "cortex-a710", "cortex-a78ae", "cortex-a78", "cortex-a77",
    "cortex-a76", "cortex-a75", "cortex-a73", "cortex-a72", "cortex-a57", "cortex-a55",
    "cortex-a53", "cortex-a35",
)  # fmt: skip
_SOCS: Final[Mapping[str, str]] = {
    "bcm2712": "cortex-a76",
    "bcm2711": "cortex-a72",
    "bcm2837": "cortex-a53",
    "bcm2710": "cortex-a53",
    "tegra234": "cortex-a78ae",
    "tegra194": "carmel",
    "tegra210": "cortex-a57",
    "rk3588": "cortex-a76",
    "rk3399": "cortex-a72",
    "raspberry pi 5": "cortex-a76",
    "raspberry pi 4": "cortex-a72",
    "raspberry pi 3": "cortex-a53",
    "raspberry pi zero 2": "cortex-a53",
}
# System V ABI supplement: what each level of x86-64 needs beyond the one before.
_X86_LEVELS: Final = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"}),
    ("x86-64-v2", {"sse4_1", "sse4_2", "ssse3", "popcnt", "cx16"}),
)
_TRIPLES: Final[Mapping[str, str]] = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "armv7": "arm-linux-gnueabihf",
}
_ARCHS: Final[Mapping[str, str]] = {
    "x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64",
    "armv7l": "armv7", "armv7": "armv7", "armhf": "armv7", "armv8l": "armv7",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TvmTarget:
    """A TVM target.

    Attributes:
        text: canonical JSON of the dictionary TVM takes; the target's identity.
    """

    text: str

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> TvmTarget:
        """Return the target of a dictionary such as ``{"kind": "llvm", "mcpu": ...}``."""
        return cls(canonical_json(dict(spec)))

    @property
    def spec(self) -> dict[str, Any]:
        """The dictionary."""
        return dict(json.loads(self.text))

    @property
    def id(self) -> str:
        """Sixteen digits of its hash."""
        return content_id(self.spec, length=16)

    @property
    def arch(self) -> str:
        """x86_64, aarch64, armv7, or whatever the triple begins with."""
        first = str(self.spec.get("mtriple") or platform.machine()).partition("-")[0]
        return _ARCHS.get("armv7" if first == "arm" else first.lower(), first)

    def __str__(self) -> str:
        """Short, for people: ``aarch64 cortex-a72``."""
        return f"{self.arch} {self.spec.get('mcpu', 'generic')}"


def make_target(arch: str, *, mcpu: str | None = None, threads: int = 1) -> TvmTarget:
    """Return the target of an instruction set.

    `threads` is what tuning may assume; a library tuned for one thread stays on one.
    Raises: ConfigError for an instruction set nobody prepared.
    """
    known = _ARCHS.get(arch.lower())
    if known is None:
        raise ConfigError(
            f"there is no TVM target for the instruction set {arch!r}",
            code="unknown_target",
            hint=f"known: {', '.join(_TRIPLES)}; or give the target as JSON",
        )
    spec: dict[str, Any] = {"kind": "llvm", "mtriple": _TRIPLES[known], "num-cores": threads}
    if known == "aarch64":
        spec["mattr"] = ["+neon"]
    elif known == "armv7":
        # Without this the linker refuses: the objects would pass floats in integer registers.
        spec |= {"mfloat-abi": "hard", "mattr": ["+neon", "+vfp4"]}
        mcpu = mcpu or "cortex-a7"
    if mcpu:
        spec["mcpu"] = mcpu
    return TvmTarget.of(spec)


def host_target(*, threads: int = 1) -> TvmTarget:
    """Target of this machine."""
    arch = platform.machine()
    cpuinfo = _read(Path("/proc/cpuinfo"))
    mcpu = _x86_level(cpuinfo) if _ARCHS.get(arch) == "x86_64" else _arm_cpu(cpuinfo)
    return make_target(arch, mcpu=mcpu, threads=threads)


def device_target(spec: DeviceSpec, *, threads: int = 1) -> TvmTarget:
    """Target of a board, from its probe; the generic processor where its own is unknown.

    Raises: ConfigError for an instruction set nobody prepared.
    """
    if spec.uri.startswith("local:"):
        return host_target(threads=threads)
    device = spec.details.get("device")
    facts = device if isinstance(device, Mapping) else {}
    arch = str(facts.get("arch") or platform.machine())
    if _ARCHS.get(arch.lower()) == "x86_64":
        # Its flags are not in the probe: what every x86 board of the last fifteen years has.
        return make_target(arch, mcpu="x86-64-v2", threads=threads)
    names = " ".join(str(facts.get(key) or "") for key in ("soc", "model"))
    return make_target(arch, mcpu=_arm_cpu(f"{spec.soc} {names}"), threads=threads)


def parse_target(text: str, *, threads: int = 1) -> TvmTarget:
    """Return the target a user means: a name of `NAMES`, ``aarch64:cortex-a72``, or JSON.

    Raises: ConfigError.
    """
    if text == "host":
        return host_target(threads=threads)
    if text.lstrip().startswith("{"):
        try:
            spec = json.loads(text)
        except ValueError as exc:
            raise ConfigError(
                f"the target {text[:60]!r} is not JSON: {exc}", code="unknown_target"
            ) from exc
        if not isinstance(spec.get("kind"), str):
            raise ConfigError(
                f"the target {text[:60]!r} has no 'kind'",
                code="unknown_target",
                hint='for example {"kind":"llvm","mtriple":"aarch64-linux-gnu"}',
            )
        return TvmTarget.of({"num-cores": threads, **spec})
    arch, _, mcpu = text.partition(":")
    return make_target(arch, mcpu=mcpu or None, threads=threads)


def linker(target: TvmTarget) -> list[str]:
    """Command that links a shared library for `target`: the compiler and its first options.

    Raises: ExportError "cross_compiler_missing" with what to install.
    """
    arch = target.arch
    candidates = {
        "aarch64": [["aarch64-linux-gnu-g++"], ["aarch64-linux-gnu-gcc"]],
        "armv7": [["arm-linux-gnueabihf-g++"], ["arm-linux-gnueabihf-gcc"]],
    }.get(arch, [])
    package = {"aarch64": "g++-aarch64-linux-gnu", "armv7": "g++-arm-linux-gnueabihf"}.get(arch, "")
    if arch == _ARCHS.get(platform.machine()):
        candidates, package = [["g++"], ["gcc"], ["c++"], ["clang"]], "g++"
    elif arch in _TRIPLES:
        triple = _TRIPLES[arch]
        # The objects call nothing but libc, which the runtime has loaded already.
        candidates.append(["clang", f"--target={triple}", "-fuse-ld=lld", "-nostdlib"])
        candidates.append(["zig", "cc", "-target", triple.replace("-linux-gnu", "-linux-gnu.2.28")])
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise ExportError(
        f"no compiler on this machine links libraries for {arch}",
        code="cross_compiler_missing",
        hint=f"sudo apt-get install {package}" if package else "install clang and lld",
    )


def _x86_level(cpuinfo: str) -> str:
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    for index, (name, _) in enumerate(_X86_LEVELS):
        if all(needed <= flags for _, needed in _X86_LEVELS[index:]):
            return name
    return "x86-64"


def _arm_cpu(text: str) -> str | None:
    """LLVM's name of the processor that `text` talks about."""
    text = " ".join(text.lower().split())
    for name in _ARM_CORES:
        if re.search(rf"{name}(?![0-9a-z])", text):
            return name
    return next((cpu for soc, cpu in _SOCS.items() if soc in text), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
