"""What the board is made of. The name of a built image is a hash of this recipe."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parents[1] / "constraints.txt"

SUITE = "bookworm"
DEBIAN_ARCH = "arm64"
MACHINE = "aarch64"
BOARD_PACKAGES = (
    "openssh-server", "python3", "python3-venv", "python3-pip", "iproute2", "procps",
)  # fmt: skip
# Documentation takes time to unpack and room to carry.
DPKG_OPTIONS = (
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")),
)
HOOKS = ("essential", "customize")
"""Scripts beside this file that mmdebstrap runs on the new root."""

# Command -> Debian package, on the host.
HOST_COMMANDS = {
    "qemu-aarch64-static": "qemu-user-static",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "adb": "adb",
    "zstd": "zstd",
    "unshare": "util-linux",
    "mount": "mount",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

BOARD_PYTHON = "3.11"
RUNTIME_WHEELS = ("onnxruntime", "numpy", "flatbuffers", "protobuf", "packaging")
WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def cache_dir() -> Path:
    """Where images are kept: outside the repository, kept between runs."""
    named = os.environ.get("HWNAS_BOARD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwnas-board"


def base_name() -> str:
    """Name of the Debian root: changes with the recipe."""
    hooks = [(HERE / f"{name}.sh").read_text() for name in HOOKS]
    recipe = [SUITE, DEBIAN_ARCH, BOARD_PACKAGES, DPKG_OPTIONS, hooks]
    return f"base-{_digest(recipe)}"


def runtime_name() -> str:
    """Name of the layer with ONNX Runtime: changes with the base and the versions."""
    return f"runtime-{_digest([base_name(), runtime_requirements(), BOARD_PYTHON])}"


def runtime_requirements(constraints: Path = CONSTRAINTS) -> list[str]:
    """The pinned requirements of the runtime layer, as on the host."""
    text = constraints.read_text()
    found = []
    for name in RUNTIME_WHEELS:
        match = re.search(rf"^{re.escape(name)}==(\S+)$", text, re.MULTILINE)
        found.append(f"{name}=={match[1]}" if match else name)
    return found


def _digest(recipe: object) -> str:
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
