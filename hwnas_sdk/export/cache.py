"""Content-addressed files, safe against kill -9, two processes at once and a full disk.

Layout::

    ROOT/ab/ab12...ef.onnx   the file, named by the SHA-256 of its bytes; its presence is the truth
    ROOT/ab/cd34...01.so     the same for a library compiled by TVM
    ROOT/ab/ab12...ef.json   what it is; written first, without it the file does not count
    ROOT/memo/KEY            sha256 of what an export with this key gave
    ROOT/tmp/                files being written; whatever is older than an hour is litter

A file appears under its name by one rename, whole, and is on the disk when `put` returns. What a
power cut can spoil (a file about to be flushed, a description, a memo) is noticed: readers check
the hash once per process and file state, remove a damaged file, and it is written again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import canonical_json, sha256_bytes
from hwnas_sdk.core.types import Artifact

_LOG = logging.getLogger(__name__)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"[0-9a-z]{8,64}")
SUFFIXES: Final[Mapping[str, str]] = {"onnx": ".onnx", "tvm": ".so", "tflite": ".tflite"}
"""Format of an artifact -> how its file's name ends, here and on the board."""
_LITTER_AGE_S: Final = 3600.0
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_State = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `ArtifactCache.gc` took away."""

    n_removed: int
    freed_bytes: int


class ArtifactCache:
    """Files by content. Any number of processes may share one root.

    Args:
        root: folder, created when missing.

    Attributes:
        has_grown: whether this object wrote a file.

    Raises: DataError when the folder cannot be made (``cache_unwritable``, ``no_space``).
    """

    def __init__(self, root: Path) -> None:
        """Open the cache and sweep what killed writers left behind an hour ago or more."""
        self.root = Path(root).absolute()
        self.has_grown = False
        self._tmp = self.root / "tmp"
        self._memo = self.root / "memo"
        self._verified: dict[str, tuple[_State, dict[str, Any]]] = {}
        with self._disk_errors():
            for folder in (self._tmp, self._memo):
                folder.mkdir(parents=True, exist_ok=True)
            self._sweep()

    # --- files --------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, or would lie if it were ONNX.

        Raises: DataError (``bad_hash``) for anything but 64 hex digits.
        """
        if not _SHA256.fullmatch(sha256):
            raise DataError(f"not a SHA-256: {sha256[:80]!r}", code="bad_hash")
        stem = self.root / sha256[:2] / sha256
        found = (stem.with_suffix(suffix) for suffix in SUFFIXES.values())
        return next((path for path in found if path.exists()), stem.with_suffix(SUFFIXES["onnx"]))

    def put(
        self,
        data: bytes,
        *,
        format: str,  # noqa: A002 - the artifact's own word for it
        arch_id: str,
        folded: bool,
        producer: str,
        input_shapes: Mapping[str, tuple[int, ...]],
        details: Mapping[str, Any] | None = None,
        target: str = "",
        inputs: Sequence[tuple[str, tuple[int, ...], str]] = (),
        tuned: bool | None = None,
    ) -> Artifact:
        """Store `data`; when it returns, its bytes survive a power cut. Idempotent.

        Bytes that are there already keep their first description in the cache; the returned
        artifact has the one given here.

        Args:
            data: the whole file.
            format: "onnx" or "tvm".
            arch_id: see `Artifact`, as for the next three.
            folded: whether it is the canonical live graph.
            producer: what wrote it.
            input_shapes: full static shape of each input.
            details: more facts to keep beside it, JSON values (see `details`).
            target: see `Artifact`, as for the next two.
            inputs: what is fed, in order.
            tuned: whether a compiled file is.

        Raises: DataError (``no_space``, ``cache_unwritable``); nothing half-written is left.
        """
        if format not in SUFFIXES:
            raise DataError(f"artifacts of format {format!r} cannot be kept", code="bad_format")
        sha256 = sha256_bytes(data)
        facts = {
            "sha256": sha256,
            "format": format,
            "arch_id": arch_id,
            "folded": folded,
            "producer": producer,
            "size_bytes": len(data),
            "input_shapes": {name: list(shape) for name, shape in input_shapes.items()},
            "details": dict(details or {}),
        }
        if format != "onnx":  # ONNX files keep the description they always had
            facts |= {"target": target, "inputs": [list(entry) for entry in inputs], "tuned": tuned}
        path = self.path(sha256).with_suffix(SUFFIXES[format])
        if self._facts(sha256) is None:
            with self._disk_errors():
                path.parent.mkdir(exist_ok=True)
                self._write(path.with_suffix(".json"), canonical_json(facts).encode())
                self._write_durably(path, data)
                self._verified[sha256] = (_state(path), facts)
                self.has_grown = True
        return _artifact(facts, path)

    def get(self, sha256: str) -> Artifact | None:
        """Return the file with this hash, or None where it is missing or was damaged.

        A damaged file is removed, so that the caller's next `put` writes it again.
        """
        facts = self._facts(sha256)
        return None if facts is None else _artifact(facts, self.path(sha256))

    def details(self, sha256: str) -> Mapping[str, Any]:
        """Facts stored beside the file; empty where the file is missing."""
        facts = self._facts(sha256) or {}
        return dict(facts.get("details", {}))

    # --- memo ---------------------------------------------------------------------------------

    def remember(self, key: str, sha256: str) -> None:
        """Note that the work named `key` (8 to 64 digits or lower-case letters) gave this file."""
        with self._disk_errors():
            self._write(self._memo_path(key), sha256.encode())

    def recall(self, key: str) -> Artifact | None:
        """Return what the work named `key` gave, while its file is intact."""
        try:
            sha256 = self._memo_path(key).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        return self.get(sha256) if _SHA256.fullmatch(sha256) else None

    def _memo_path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise DataError(f"not a memo key: {key[:80]!r}", code="bad_hash")
        return self._memo / key

    # --- upkeep -------------------------------------------------------------------------------

    @contextmanager
    def scratch(self) -> Iterator[ArtifactCache]:
        """Yield an empty cache on the same file system, gone afterwards."""
        folder = self._tmp / uuid.uuid4().hex
        try:
            yield ArtifactCache(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def gc(self, keep: Collection[str] | None = None) -> GcReport:
        """Remove damaged files, half of a pair, and litter.

        Args:
            keep: hashes to keep; every other file goes. None keeps all that are intact.
        """
        self._verified.clear()
        before = _sizes(self.root)
        with self._disk_errors():
            self._sweep()
            hashes = {path.stem for path in self.root.glob("??/*") if _SHA256.fullmatch(path.stem)}
            for sha256 in hashes:
                content = self.path(sha256)
                if keep is not None and sha256 not in keep:
                    with self._lock():
                        content.unlink(missing_ok=True)
                        content.with_suffix(".json").unlink(missing_ok=True)
                elif self._facts(sha256) is None:
                    # The other half may be on its way from another process: litter only when old.
                    _unlink_old(content.with_suffix(".json"))
                    _unlink_old(content)
            for note in self._memo.iterdir():
                if self.recall(note.name) is None:
                    _unlink_old(note)
        after = _sizes(self.root)
        gone = before.keys() - after.keys()
        return GcReport(len(gone), sum(before[path] for path in gone))

    def _sweep(self) -> None:
        for path in self._tmp.iterdir():
            if path.is_dir() and _age_s(path) > _LITTER_AGE_S:
                shutil.rmtree(path, ignore_errors=True)
            else:
                _unlink_old(path)

    # --- the parts ----------------------------------------------------------------------------

    def _facts(self, sha256: str) -> dict[str, Any] | None:
        """Sidecar of an intact file. Reads and hashes it unless its state is known to be good."""
        path = self.path(sha256)
        try:
            state = _state(path)
            known = self._verified.get(sha256)
            if known is not None and known[0] == state:
                return known[1]
            if sha256_bytes(path.read_bytes()) != sha256:
                self._remove_damaged(sha256)
                return None
            facts = _read_facts(path.with_suffix(".json"), sha256)
        except FileNotFoundError:
            return None
        if facts is not None:
            self._verified[sha256] = (state, facts)
            with suppress(OSError):
                os.utime(path.with_suffix(".json"))  # used now, see cache_limit
        return facts

    def _remove_damaged(self, sha256: str) -> None:
        path = self.path(sha256)
        with self._lock():  # another process may have put a good one there by now
            if path.exists() and sha256_bytes(path.read_bytes()) != sha256:
                _LOG.warning("artifact %s is damaged (%d bytes): removed", path, _state(path)[0])
                path.unlink()
        self._verified.pop(sha256, None)

    def _write(self, target: Path, data: bytes) -> None:
        """Make `data` appear as `target` at once; a power cut may undo or spoil it."""
        os.close(self._place(target, data))

    def _write_durably(self, target: Path, data: bytes) -> None:
        """Make `data` appear as `target` at once, and return when disk and folder have it.

        The one fsync comes after the rename: the file systems in use (ext4, xfs, btrfs) then
        persist bytes and name in one flush, where fsync, rename, fsync of the folder needs two.
        A power cut in between can leave a spoilt file, which its hash gives away.
        """
        descriptor = self._place(target, data)
        try:
            os.fsync(descriptor)
        except OSError:
            with self._lock():
                target.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _place(self, target: Path, data: bytes) -> int:
        """Write to a temporary file and rename it; returns the open descriptor."""
        temporary = self._tmp / uuid.uuid4().hex
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            with self._lock():
                temporary.replace(target)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        return descriptor

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Exclude other threads and processes; the kernel lets go when a holder dies."""
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in _DISK_FULL:
                raise DataError(
                    f"no space left for artifacts in {self.root}",
                    code="no_space",
                    hint="free some space, or set HWNAS_HOME to a folder on another disk",
                    retryable=True,
                ) from exc
            raise DataError(
                f"the artifact cache {self.root} cannot be written: {exc.strerror}",
                code="cache_unwritable",
                hint="check the folder's owner and permissions, or set HWNAS_HOME",
            ) from exc


def _artifact(facts: Mapping[str, Any], path: Path) -> Artifact:
    return Artifact(
        sha256=facts["sha256"],
        format=facts["format"],
        arch_id=facts["arch_id"],
        folded=facts["folded"],
        producer=facts["producer"],
        size_bytes=facts["size_bytes"],
        path=str(path),
        input_shapes={name: tuple(shape) for name, shape in facts["input_shapes"].items()},
        target=facts.get("target", ""),
        inputs=tuple((name, tuple(shape), kind) for name, shape, kind in facts.get("inputs", ())),
        tuned=facts.get("tuned"),
    )


def _read_facts(path: Path, sha256: str) -> dict[str, Any] | None:
    """Sidecar, or None where it is damaged or belongs to another file."""
    try:
        facts = json.loads(path.read_bytes())
        _artifact(facts, path)
    except (ValueError, KeyError, TypeError, AttributeError):
        _LOG.warning("artifact description %s is damaged", path)
        return None
    return facts if facts["sha256"] == sha256 else None


def _state(path: Path) -> _State:
    """What changes whenever somebody touches the file's bytes."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime  # against a file's own clock, so wall time


def _unlink_old(path: Path) -> None:
    try:
        if _age_s(path) > _LITTER_AGE_S:
            path.unlink()
    except FileNotFoundError:
        _LOG.debug("%s is gone already", path)


def _sizes(root: Path) -> dict[Path, int]:
    sizes = {}
    for path in root.rglob("*"):
        try:
            if path.is_file():
                sizes[path] = path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes
