"""A board whose shell is this machine's `sh`, and tiny wheels that pip takes for the real ones."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from hwnas_sdk.devices.transports.shell import BoardShell, Completed

BASE_PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
"""An interpreter without anything installed: the one our own environment was made from."""

WORK = '"$HOME"/hwnas'
"""Our folder there, as a shell word."""

RUNTIME = (
    "import numpy\n"
    "__version__ = {version!r}\n"
    "def get_available_providers():\n"
    "    return ['CPUExecutionProvider']\n"
)


class LocalShell(BoardShell):
    """Runs commands with the plain `sh` of this machine in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.device_id = "shelf"
        self.home = home
        self.work = home / "hwnas"
        self.environ = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.environ["HWNAS_LEASE_DIR"] = str(home)  # not this machine's own
        self.commands: list[str] = []

    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout_s: float = 30.0
    ) -> Completed:
        self.commands.append(command)
        data = stdin if isinstance(stdin, bytes) else b"".join(stdin)
        with subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            cwd=self.home,
            start_new_session=True,
        ) as process:
            out, err = process.communicate(data, timeout=timeout_s)
        return Completed(process.returncode, out, err)

    def open(self, command: str) -> NoReturn:
        raise NotImplementedError(command)

    def close(self) -> None:
        pass


def board_processes(home: Path) -> list[int]:
    """What runs in a board's home, whoever started it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={home}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def make_wheel(
    folder: Path, name: str, version: str, files: dict[str, str], *, tag: str = "py3-none-any"
) -> Path:
    """Write a wheel that installs `files` (path -> text)."""
    info = f"{name}-{version}.dist-info"
    entries = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = []
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in entries.items():
            digest = hashlib.sha256(text.encode()).digest()
            digest64 = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            record.append(f"{entry},sha256={digest64},{len(text.encode())}")
            archive.writestr(entry, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return path


def make_runtime_wheels(
    folder: Path, version: str = "9.0.0", *, runtime: str | None = None
) -> Path:
    """Wheels called onnxruntime and numpy, importable and empty; returns the folder."""
    make_wheel(folder, "numpy", "9.9.9", {"numpy/__init__.py": "__version__ = '9.9.9'\n"})
    text = RUNTIME.format(version=version) if runtime is None else runtime
    make_wheel(folder, "onnxruntime", version, {"onnxruntime/__init__.py": text})
    return folder


CRASHES = f"import os\nos.kill(os.getpid(), {int(signal.SIGILL)})\n"
"""A runtime as built for another processor."""
