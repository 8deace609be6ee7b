"""Building the board's read-only layers, once; safe against being killed at any moment.

A layer is a folder in the cache, renamed to its final name when it is whole, and a ``.tar.zst``
of it that can be carried to another machine. Builders run in namespaces that die with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .host import install_packages, missing_packages, register_interpreter, unavailable
from .recipe import (
    BOARD_PACKAGES,
    BOARD_PYTHON,
    DEBIAN_ARCH,
    DPKG_OPTIONS,
    HERE,
    HOOKS,
    SUITE,
    WHEEL_PLATFORMS,
    base_name,
    cache_dir,
    runtime_name,
    runtime_requirements,
)
from .shell import BoardError, run

# Ended with whoever started it, even by kill -9, and taking its mounts along.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
           "--kill-child")  # fmt: skip


def is_built(*, runtime: bool = True) -> bool:
    """Whether boards can start without building anything."""
    names = [base_name(), *([runtime_name()] if runtime else [])]
    ready = all((cache_dir() / name).is_dir() or _archive(name).is_file() for name in names)
    return ready and not missing_packages()


def layer_paths(*, runtime: bool) -> list[Path]:
    """The read-only layers of a board, upmost first. Raises: BoardError when not built."""
    names = [*([runtime_name()] if runtime else []), base_name()]
    with _locked():
        for name in names:
            folder = cache_dir() / name
            if not folder.is_dir():
                if not _archive(name).is_file():
                    raise BoardError("the board is not built: python tools/qemu_board build")
                _unpack(name)
    return [cache_dir() / name for name in names]


def build(*, runtime: bool = True, log: Callable[[str], None] = print) -> dict[str, float]:
    """Build what is missing; returns seconds per step that was needed.

    Raises: BoardError when this host cannot, or when a step fails.
    """
    reason = unavailable()
    if reason:
        raise BoardError(reason)
    taken_s: dict[str, float] = {}

    def step(name: str, what: Callable[[], object]) -> None:
        log(f"{name} ...")
        began_s = time.monotonic()
        what()
        taken_s[name] = round(time.monotonic() - began_s, 1)
        log(f"{name}: {taken_s[name]} s")

    if missing_packages():
        step("host packages", install_packages)
    register_interpreter()
    with _locked():
        _remove_leftovers()
        if _needs(base_name()):
            step("debian root", _build_base)
        if runtime and _needs(runtime_name()):
            step("onnxruntime layer", _build_runtime)
    return taken_s


def _needs(name: str) -> bool:
    if (cache_dir() / name).is_dir():
        return False
    if _archive(name).is_file():
        _unpack(name)
        return False
    return True


def _build_base() -> None:
    with _workshop() as shop:
        root = shop / "root"
        mirror = os.environ.get("HWNAS_BOARD_MIRROR")
        hooks = [f'--{name}-hook={shlex.quote(str(HERE / name))}.sh "$1"' for name in HOOKS]
        run(
            [*_MORTAL, "mmdebstrap", "--mode=root", f"--arch={DEBIAN_ARCH}", "--variant=minbase",
             f"--include={','.join(BOARD_PACKAGES)}", *DPKG_OPTIONS, *hooks, SUITE, root,
             *([mirror] if mirror else [])],
            timeout_s=3600, env={**os.environ, "TMPDIR": str(shop)},
        )  # fmt: skip
        _finish(root, base_name())


def _build_runtime() -> None:
    """Install the wheels into an overlay on memory and keep what that added."""
    with _workshop() as shop:
        wheels, layer = shop / "wheels", shop / "layer"
        download_wheels(runtime_requirements(), wheels)
        layer.mkdir()
        script = (
            'set -e; cd "$1"; mkdir mem; mount -t tmpfs tmpfs mem; mkdir mem/up mem/work mem/all; '
            'mount -t overlay overlay -o "lowerdir=$2,upperdir=mem/up,workdir=mem/work" mem/all; '
            "mount -t proc proc mem/all/proc; mkdir mem/all/wheels; "
            "cp wheels/*.whl mem/all/wheels; "
            "chroot mem/all python3 -m pip install --quiet --no-index --no-deps "
            "--break-system-packages --root-user-action=ignore "
            '$(cd wheels && printf "wheels/%s " *.whl); '  # expanded on the host
            "rm -r mem/all/wheels; cp -a mem/up/usr layer/; umount mem/all/proc mem/all"
        )
        run([*_MORTAL, "sh", "-c", script, "layer", shop, cache_dir() / base_name()],
            timeout_s=900)  # fmt: skip
        _finish(layer, runtime_name())


def download_wheels(requirements: list[str], folder: Path) -> None:
    """Download the board's wheels with the host's pip into `folder`."""
    platforms = [word for name in WHEEL_PLATFORMS for word in ("--platform", name)]
    run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--dest", folder, "--only-binary=:all:", "--no-deps", "--implementation", "cp",
         "--python-version", BOARD_PYTHON, *platforms, *requirements],
        timeout_s=900,
    )  # fmt: skip


def _finish(folder: Path, name: str) -> None:
    """Archive a finished layer, then give it its final name."""
    folder.chmod(0o755)
    scratch = folder.parent / "archive"
    run(["tar", "--create", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*",
         "--file", scratch, "--directory", folder, "."], timeout_s=900)  # fmt: skip
    scratch.replace(_archive(name))
    folder.rename(cache_dir() / name)


def _unpack(name: str) -> None:
    register_interpreter()
    with _workshop() as shop:
        folder = shop / "root"
        folder.mkdir()
        run(["tar", "--extract", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*",
             "--file", _archive(name), "--directory", folder], timeout_s=900)  # fmt: skip
        folder.rename(cache_dir() / name)


def _archive(name: str) -> Path:
    return cache_dir() / f"{name}.tar.zst"


@contextlib.contextmanager
def _workshop() -> Iterator[Path]:
    """A scratch folder in the cache (same file system, so that a rename finishes a layer)."""
    shop = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir()))
    try:
        yield shop
    finally:
        shutil.rmtree(shop, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove scratch folders of builders that were killed; call with the lock held."""
    for path in cache_dir().glob(".building-*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time; the lock ends with the process."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
