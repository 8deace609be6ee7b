"""Keeps the artifact cache within a size: at the end of a run the least recently used files go.

The limit is ``HWNAS_CACHE_MIB`` (2048 where unset). A run may need more than that while it lasts:
nothing is removed while any process works with the cache, and only a run that wrote something looks
at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.export.cache import ArtifactCache, GcReport

_LOG = logging.getLogger(__name__)
VARIABLE: Final = "HWNAS_CACHE_MIB"
_DEFAULT_MIB: Final = 2048


def limit_bytes() -> int:
    """What the artifact cache may take.

    Raises: ConfigError when the variable is no number.
    """
    text = os.environ.get(VARIABLE) or str(_DEFAULT_MIB)
    try:
        mib = float(text)
    except ValueError:
        mib = -1.0
    if not 0.0 <= mib < float("inf"):
        raise ConfigError(f"{VARIABLE}={text!r} is not a size in MiB", hint="for example 2048")
    return int(mib * 2**20)


def used_bytes(root: Path) -> int:
    """What the cache takes now; 0 where there is none."""
    return sum(size for _, size, _ in _files(root)) if root.is_dir() else 0


@contextlib.contextmanager
def working_with(cache: ArtifactCache) -> Iterator[None]:
    """Mark the cache as in use; at the end, trim it if this run wrote to it and nobody else works.

    Raises: ConfigError when the limit is no number.
    """
    limit = limit_bytes()
    descriptor = os.open(cache.root / ".in-use", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
        if cache.has_grown:
            with contextlib.suppress(BlockingIOError):  # another run trims when it ends
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                report = trim(cache.root, limit)
                _LOG.debug("artifact cache: %d files removed", report.n_removed)
    finally:
        os.close(descriptor)


def trim(root: Path, limit: int) -> GcReport:
    """Remove the least recently used files until the rest takes at most `limit` bytes.

    Whoever calls this knows that nobody works with the cache.
    """
    files = sorted(_files(root))
    excess = sum(size for _, size, _ in files) - limit
    n_removed, freed = 0, 0
    for _, size, path in files:
        if freed >= excess:
            break
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
        except OSError as exc:
            _LOG.warning("%s cannot be removed: %s", path, exc.strerror)
            continue
        n_removed, freed = n_removed + 1, freed + size
    return GcReport(n_removed, freed)


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """(when last used, bytes with its description, path) of every file."""
    for path in root.glob("??/*"):
        if path.suffix == ".json":
            continue
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            used_s, size = stat.st_mtime, stat.st_size
            with contextlib.suppress(FileNotFoundError):
                note = path.with_suffix(".json").stat()
                used_s, size = max(used_s, note.st_mtime), size + note.st_size
            yield used_s, size, path
