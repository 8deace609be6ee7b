"""Wheels for a board, fetched on the host: the board itself needs no internet.

`pip download` picks the newest wheels that fit the board's interpreter, C library and processor.
They are kept in ``HWNAS_HOME/wheels/<tag>/`` together with a list of what belongs together, so a
second board of the same kind, or the same one set up again, needs no internet on the host either.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError, DataError, DeviceError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.devices.board_facts import Version

_LOG = logging.getLogger(__name__)
_DOWNLOAD_TIMEOUT_S: Final = 3600.0
_LITTER_AGE_S: Final = 3600.0
_OLDEST_GLIBC: Final = 17
"""manylinux_2_17 (manylinux2014): older tags are not in use for 64-bit Arm."""
_NETWORK_SIGNS: Final = (
    "after connection broken by",
    "Failed to establish a new connection",
    "Read timed out",
    "ProxyError",
    "SSLError",
    "HTTP error",
    "Name or service not known",
    "Temporary failure in name resolution",
)

# ONNX Runtime declares flatbuffers, packaging and protobuf as well; inference imports none of them.
_ORT: Final = ("onnxruntime", "numpy")
# What running a compiled library needs beside the pinned pair.
_TVM: Final = ("ml_dtypes", "typing_extensions", "numpy")
_TVM_RPC: Final = ("tornado", "psutil", "cloudpickle")


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelTarget:
    """What wheels have to fit.

    Attributes:
        python: (major, minor) of a CPython.
        machine: "aarch64" or "x86_64".
        glibc: (2, minor).
    """

    python: Version
    machine: str
    glibc: Version

    @property
    def tag(self) -> str:
        """Name of the folder for such wheels, for example ``cp311-glibc2.36-aarch64``."""
        major, minor = self.python[:2]
        return f"cp{major}{minor}-glibc{self.glibc[0]}.{self.glibc[1]}-{self.machine}"

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags that fit, the newest first (PEP 600)."""
        newest_first = range(self.glibc[1], _OLDEST_GLIBC - 1, -1)
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in newest_first]
        return (*tags, f"manylinux2014_{self.machine}")

    def __str__(self) -> str:
        """For messages."""
        python = ".".join(str(part) for part in self.python[:2])
        glibc = ".".join(str(part) for part in self.glibc)
        return f"CPython {python}, {self.machine}, glibc {glibc}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel on the host.

    Attributes:
        path: where it lies.
        sha256: of its bytes.
        size_bytes: of the file.
        unpacked_bytes: what it takes once installed.
    """

    path: Path
    sha256: str
    size_bytes: int
    unpacked_bytes: int

    @property
    def package(self) -> str:
        """Normalised name of the package."""
        return _normal(self.path.name.split("-")[0])

    @property
    def version(self) -> str:
        """Its version."""
        return self.path.name.split("-")[1]


def requirements(runtime: str, *, rpc: bool = False) -> tuple[str, ...]:
    """What a board needs to run networks with `runtime` ("ort" or "tvm"), as pip writes it.

    `rpc` adds what TVM's RPC server needs. TVM's versions are those this package is built for.
    Raises: ConfigError for another runtime.
    """
    match runtime:
        case "ort":
            return _ORT
        case "tvm":
            return (*_pins(), *_TVM, *(_TVM_RPC if rpc else ()))
        case _:
            raise ConfigError(f"unknown runtime {runtime!r}", hint="one of ort, tvm")


def _pins() -> tuple[str, ...]:
    """TVM and its ffi library as our own extra pins them: the two are one ABI contract."""
    found = []
    for line in metadata.requires("hwnas-sdk") or []:
        match = re.fullmatch(r"(apache-tvm(?:-ffi)?)(?:\[[^]]*\])?\s*([^;]*);.*tvm.*", line)
        if match is not None:
            found.append(match.group(1) + match.group(2).strip())
    assert len(found) == 2, found
    return tuple(found)


class WheelStore:
    """The wheels this host keeps for boards."""

    def __init__(self, root: Path | None = None) -> None:
        """Use `root`, or the folder ``wheels`` in the data folder; created when first needed."""
        self._root = root

    @property
    def root(self) -> Path:
        """Where it is."""
        return self._root or _resources.home() / "wheels"

    @contextlib.contextmanager
    def wheels(
        self,
        wanted: Sequence[str],
        target: WheelTarget,
        *,
        folder: Path | None = None,
        upgrade: bool = False,
        device_id: str = "",
    ) -> Iterator[tuple[Wheel, ...]]:
        """Yield one wheel for each of `wanted`.

        Args:
            wanted: requirements.
            target: what they have to fit.
            folder: where to look instead of the package index; nothing of it is kept.
            upgrade: ask the index again even when wheels are there.
            device_id: for error messages.

        Raises: DeviceError "wheels_missing", ConfigError "download_failed" or "pip_missing",
        DataError when the folder cannot be written.
        """
        try:
            if folder is not None:
                with tempfile.TemporaryDirectory(prefix="hwnas-wheels-") as scratch:
                    yield _download(wanted, target, Path(scratch), folder, device_id)
                return
            here = self.root / target.tag
            kept = None if upgrade else _read_list(here, wanted)
            yield kept or self._fetch(wanted, target, here, device_id)
        except OSError as exc:
            raise DataError(
                f"the wheels cannot be kept in {self.root}: {exc.strerror or exc}",
                code="no_space" if exc.errno == errno.ENOSPC else "not_writable",
                hint="set HWNAS_HOME to a folder with room",
            ) from exc

    def _fetch(
        self, wanted: Sequence[str], target: WheelTarget, here: Path, device_id: str
    ) -> tuple[Wheel, ...]:
        here.mkdir(parents=True, exist_ok=True)
        with (here / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of ours may be fetching the same
            return self._fetch_alone(wanted, target, here, device_id)

    def _fetch_alone(
        self, wanted: Sequence[str], target: WheelTarget, here: Path, device_id: str
    ) -> tuple[Wheel, ...]:
        _sweep(here)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=here))
        try:
            found = _download(wanted, target, scratch, None, device_id)
            kept = tuple(
                Wheel(
                    wheel.path.replace(here / wheel.path.name),
                    wheel.sha256,
                    wheel.size_bytes,
                    wheel.unpacked_bytes,
                )
                for wheel in found
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        files = {wheel.path.name: wheel.sha256 for wheel in kept}
        text = json.dumps({"requirements": sorted(wanted), "files": files}, indent=1)
        write_text_atomic(_list_path(here, wanted), text + "\n")
        _drop_unlisted(here)
        return kept

    def size_bytes(self) -> int:
        """What the wheels take."""
        if not self.root.is_dir():
            return 0
        return sum(path.stat().st_size for path in self.root.rglob("*.whl"))


def _download(
    wanted: Sequence[str],
    target: WheelTarget,
    into: Path,
    folder: Path | None,
    device_id: str,
) -> tuple[Wheel, ...]:
    """Let pip choose and fetch."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
        *("--disable-pip-version-check", "--only-binary=:all:", "--retries", "2"),
        *("--python-version", ".".join(str(part) for part in target.python[:2])),
        *("--implementation", "cp", "--dest", str(into)),
    ]
    for platform in target.platforms:
        command += ["--platform", platform]
    if folder is not None:
        command += ["--no-index", "--find-links", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, arguments from our own tables
            [*command, *wanted],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(
            f"wheels for {target} were not downloaded in {_DOWNLOAD_TIMEOUT_S / 60:.0f} minutes",
            code="download_failed",
            hint="the same command again, or bring them by --wheels DIR",
            retryable=True,
        ) from exc
    if done.returncode != 0:
        _LOG.info("pip download: %s", done.stderr)
        raise _why(done.stderr, target, folder, device_id)
    found = tuple(_wheel(path) for path in sorted(into.glob("*.whl")))
    assert len(found) == len({package_name(text) for text in wanted}), (found, wanted)
    return found


def _why(
    stderr: str, target: WheelTarget, folder: Path | None, device_id: str
) -> DeviceError | ConfigError:
    """What pip's complaint means."""
    if "No module named pip" in stderr:
        return ConfigError(
            f"this host's Python ({sys.executable}) has no pip",
            code="pip_missing",
            hint=f"{sys.executable} -m ensurepip",
        )
    last = [line.strip() for line in stderr.splitlines() if line.strip()][-1:] or ["no message"]
    match = re.search(r"No matching distribution found for (\S+)", stderr)
    where = f"in {folder}" if folder is not None else "on the package index"
    if folder is None and any(sign in stderr for sign in _NETWORK_SIGNS):
        what = f"{match.group(1)} for {target}" if match else f"wheels for {target}"
        return ConfigError(
            f"{what} cannot be downloaded: {_network_reason(stderr)}",
            code="download_failed",
            hint="on a machine with internet: pip download --only-binary=:all: --no-deps "
            f"--python-version {target.python[0]}.{target.python[1]} "
            f"--platform manylinux_2_28_{target.machine}; copy the files, then give --wheels DIR",
            retryable=True,
        )
    if match is not None:
        return DeviceError(
            f"there is no wheel of {match.group(1)} for {target} {where}",
            device_id=device_id,
            code="wheels_missing",
            hint="another Python on the board may have one: --python PATH"
            if folder is None
            else "put it there, or leave --wheels away to download it",
        )
    return ConfigError(
        f"pip could not fetch wheels for {target}: {last[0][:200]}",
        code="download_failed",
        hint="-v shows all pip said",
    )


def _network_reason(stderr: str) -> str:
    """The end of what pip says about the network: the part that names the cause."""
    lines = [line for line in stderr.splitlines() if any(sign in line for sign in _NETWORK_SIGNS)]
    match = re.search(r"broken by '(.*)': ", lines[0])
    text = match.group(1) if match else lines[0].removeprefix("WARNING: ")
    return text.rstrip("\"')")[-120:].rpartition("): ")[2]


def _wheel(path: Path) -> Wheel:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    return Wheel(path, sha256, path.stat().st_size, unpacked)


def _list_path(here: Path, wanted: Sequence[str]) -> Path:
    digest = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:12]
    return here / f"set-{digest}.json"


def _read_list(here: Path, wanted: Sequence[str]) -> tuple[Wheel, ...] | None:
    """Return wheels kept for `wanted`, or None where one is missing or damaged."""
    try:
        files = json.loads(_list_path(here, wanted).read_bytes())["files"]
        wheels = tuple(_wheel(here / name) for name in files)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return wheels if all(files[wheel.path.name] == wheel.sha256 for wheel in wheels) else None


def _drop_unlisted(here: Path) -> None:
    """Remove wheels no list names any more: a newer one has come."""
    listed: set[str] = set()
    for path in here.glob("set-*.json"):
        try:
            listed |= set(json.loads(path.read_bytes())["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for wheel in here.glob("*.whl"):
        if wheel.name not in listed:
            wheel.unlink(missing_ok=True)


def _sweep(here: Path) -> None:
    """Remove what a killed download left."""
    for path in here.glob(".new-*"):
        if time.time() - path.stat().st_mtime > _LITTER_AGE_S:  # a file's age, so wall time
            shutil.rmtree(path, ignore_errors=True)


def package_name(requirement: str) -> str:
    """Normalised name of the package a requirement is about."""
    return _normal(re.split(r"[<>=!~\[ ]", requirement, maxsplit=1)[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
