"""Removing what we left on the board: when asked, and by itself past a size limit.

Only under the lease. Nothing needed is removed: not the artifacts of the job at hand, not the
journal of a job that is not over, not the agent that runs. Ages are calendar time, which is wrong
on boards without a battery, so by age alone the newest files always stay.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import suppress
from typing import Any

ARTIFACTS_MAX_BYTES = 512 * 2**20
JOURNALS_MAX_BYTES = 64 * 2**20
JOURNALS_MAX_AGE_S = 30 * 86400.0
JOURNALS_KEPT = 32
"""This many of the newest stay however old they claim to be."""
AGENTS_MAX_AGE_S = 7 * 86400.0
_ARTIFACT = re.compile(r"(\.?)([0-9a-f]{64})")
_AGENT = re.compile(r"\.?hwnas-agent-[0-9a-f]{12}\.pyz(\.\d+\.tmp|\.tmp)?\Z")
_TAIL_BYTES = 65536


class _File:
    """A file that may go."""

    def __init__(self, path: str) -> None:
        found = os.lstat(path)
        self.path = path
        self.name = os.path.basename(path)
        self.size = found.st_size
        self.mtime_s = found.st_mtime


class Removed:
    """What went: number of files and bytes."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0

    def add(self, file: _File) -> None:
        """Remove a file."""
        with suppress(FileNotFoundError):
            os.unlink(file.path)
            self.files += 1
            self.bytes += file.size

    def add_tree(self, path: str) -> None:
        """Remove a folder with all it holds."""
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(OSError):
                    self.add(_File(os.path.join(folder, name)))
        shutil.rmtree(path, ignore_errors=True)


def clean(work: str, keep: set[str] | None, *, journals: bool) -> Removed:
    """Remove artifacts whose hash is not in `keep` (None: keep all), agents, broken-off uploads.

    With `journals` also the journals of jobs that are over. Raises: OSError.
    """
    removed = Removed()
    for file in [] if keep is None else _artifacts(work):
        hidden, sha256 = _ARTIFACT.match(file.name).groups()  # type: ignore[union-attr]
        if hidden or sha256 not in keep:  # type: ignore[operator]
            removed.add(file)
    for file in _other_agents(work):
        removed.add(file)
    for path in _uploads(work):
        removed.add_tree(path)
    if journals:
        for file in _finished(work):
            removed.add(file)
    return removed


def prune(work: str, in_use: set[str]) -> Removed:
    """Keep to the size limits, whatever the host does; `in_use` are hashes of the job at hand."""
    removed = Removed()
    with suppress(OSError):  # house-keeping must not cost a job
        artifacts = _artifacts(work)
        for file in artifacts:
            if file.name.split(".")[0] in in_use:
                with suppress(OSError):
                    os.utime(file.path)  # used now: the last to go
        spare = [file for file in artifacts if file.name.split(".")[0] not in in_use]
        _down_to(removed, spare, ARTIFACTS_MAX_BYTES, sum(file.size for file in artifacts))
        journals = _files(work, "journal")
        total = sum(file.size for file in journals)
        oldest_s = time.time() - JOURNALS_MAX_AGE_S
        old = [file for file in journals[:-JOURNALS_KEPT] if file.mtime_s < oldest_s]
        if total > JOURNALS_MAX_BYTES or old:
            finished = _finished(work)
            names = {file.name for file in old}
            for file in [file for file in finished if file.name in names]:
                removed.add(file)
                total -= file.size
            rest = [file for file in finished if file.name not in names]
            _down_to(removed, rest, JOURNALS_MAX_BYTES, total)
        for file in _other_agents(work):
            if file.mtime_s < time.time() - AGENTS_MAX_AGE_S:
                removed.add(file)
    return removed


def _down_to(removed: Removed, files: list[_File], limit: int, total: int) -> None:
    """Remove the oldest of `files` until `total` bytes are at most `limit`."""
    for file in files:
        if total <= limit:
            return
        removed.add(file)
        total -= file.size


def _files(work: str, folder: str) -> list[_File]:
    """The plain files in a folder, oldest first."""
    files = []
    with suppress(FileNotFoundError), os.scandir(os.path.join(work, folder)) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if not entry.is_dir(follow_symlinks=False):
                    files.append(_File(entry.path))
    return sorted(files, key=lambda file: (file.mtime_s, file.name))


def _artifacts(work: str) -> list[_File]:
    """Networks and what broken-off links and copies left; nothing else is ours to remove."""
    return [file for file in _files(work, "artifacts") if _ARTIFACT.match(file.name)]


def _other_agents(work: str) -> list[_File]:
    """Agents that are not this one: in the work folder (this machine) or its folder "agent"."""
    own = os.path.realpath(sys.argv[0])
    found = [file for folder in (".", "agent") for file in _files(work, folder)]
    return [f for f in found if _AGENT.match(f.name) and os.path.realpath(f.path) != own]


def _uploads(work: str) -> list[str]:
    """Folders of uploads whose process is gone."""
    return [
        os.path.join(work, name)
        for name in sorted(os.listdir(work))
        if name.startswith("incoming.") and not _runs(name.split(".")[1])
    ]


def _runs(pid: str) -> bool:
    return pid.isdecimal() and os.path.exists("/proc/" + pid)


def _finished(work: str) -> list[_File]:
    """Journals whose last line ends the job, and what repairs left beside them; oldest first."""
    return [
        file
        for file in _files(work, "journal")
        if file.name.endswith(".damaged") or _is_over(file.path)
    ]


def _is_over(path: str) -> bool:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        lines = stream.read().splitlines(keepends=True)
    return bool(lines) and lines[-1].endswith(b"\n") and b'"event":"job_done"' in lines[-1]


def as_reply(removed: Removed) -> dict[str, Any]:
    """The answer to "clean"."""
    return {"type": "cleaned", "files": removed.files, "bytes": removed.bytes}
