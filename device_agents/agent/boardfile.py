"""The one file all agents of a board share, whoever runs them: who holds the board.

It lies in a folder that every user may write (tmpfs on most boards), is never replaced or removed,
only written in place under its own lock: in a sticky folder another user's file can be neither
unlinked nor renamed over, and its times cannot be set. A record is padded to a fixed length, so
that writing it again needs no space on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager
from typing import Any, Iterator

from device_agents.agent.protocol import RequestError, is_full

NAME = "hwnas-agent.lease"
FOLDERS = ("/run/lock", "/dev/shm", "/tmp", "/data/local/tmp")  # noqa: S108 - meant to be shared
_LENGTH = 4096
_CREATE_WAIT_S = 1.0
_LOCK_WAIT_S = 10.0


def default_folder(work: str) -> str:
    """The first of `FOLDERS` that is everybody's, else one we may write, else the work folder.

    Everybody's first: root must not choose a folder that the next user cannot.
    """
    existing = [path for path in FOLDERS if os.path.isdir(path)]
    for path in existing:
        if os.stat(path).st_mode & stat.S_IWOTH and os.access(path, os.W_OK | os.X_OK):
            return path
    for path in existing:
        if os.access(path, os.W_OK | os.X_OK):
            return path
    return work


def flock_within(descriptor: int, timeout_s: float) -> None:
    """Lock a file, waiting at most `timeout_s`. Raises: BlockingIOError then; OSError."""
    end_s = time.monotonic() + timeout_s
    while not _try_flock(descriptor, is_last=time.monotonic() > end_s):
        time.sleep(0.005)


def _try_flock(descriptor: int, *, is_last: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if is_last:
            raise
        return False
    return True


class BoardFile:
    """Reads and writes the record in ``<folder>/hwnas-agent.lease``."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, NAME)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the file's lock; yields its descriptor for `read` and `write`.

        Raises: RequestError "lease_unusable" when the file cannot be used, "no_space".
        """
        descriptor = self._open()
        try:
            self._lock(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def read(descriptor: int) -> dict[str, Any] | None:
        """The record; None when there is none, or it is damaged."""
        try:
            record = json.loads(os.pread(descriptor, _LENGTH, 0).decode("ascii"))
            # Everybody may write it, so nothing in it is taken on trust.
            record.update({name: int(record[name]) for name in ("pid", "started_ticks")})
            record.update({name: float(record[name]) for name in ("beat_s", "ttl_s")})
            record["children"] = [[int(pid), int(start)] for pid, start in record["children"]]
            heard_s, limit_s = record.get("host_s"), record.get("silent_after_s")
            record["host_s"] = None if heard_s is None else float(heard_s)
            record["silent_after_s"] = None if limit_s is None else float(limit_s)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return None
        return record if record["pid"] > 0 else None  # type: ignore[no-any-return]

    def write(self, descriptor: int, record: dict[str, Any] | None) -> None:
        """Set the record (None: nobody holds the board)."""
        text = json.dumps(record or {})
        if len(text) >= _LENGTH:
            raise RequestError("bad_request", "lease: the owner's name is too long")
        try:
            os.pwrite(descriptor, text.ljust(_LENGTH - 1).encode("ascii") + b"\n", 0)
        except OSError as exc:
            raise self._refusal(exc) from None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        end_s = time.monotonic() + _CREATE_WAIT_S
        while True:
            try:
                # First without O_CREAT: with it the kernel refuses a file of another user in a
                # sticky folder (fs.protected_regular), though everybody may write it.
                return self._checked(os.open(self.path, flags))
            except FileNotFoundError:
                pass
            except PermissionError as exc:
                if time.monotonic() > end_s:
                    raise self._refusal(exc) from None
                time.sleep(0.01)  # somebody creates it now and has not opened it to all yet
                continue
            except OSError as exc:
                raise self._refusal(exc) from None
            try:
                descriptor = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(descriptor, 0o666)  # whatever the umask said
            except FileExistsError:
                continue  # another agent was faster
            except OSError as exc:
                raise self._refusal(exc) from None
            return descriptor

    def _checked(self, descriptor: int) -> int:
        """Refuse what somebody may have put there to have us write elsewhere."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a plain file of its own", self.path)
        return descriptor

    def _lock(self, descriptor: int) -> None:
        """Everybody may open the file, so everybody could keep it locked: wait, not for ever."""
        try:
            flock_within(descriptor, _LOCK_WAIT_S)
        except OSError as exc:
            raise self._refusal(exc) from None

    def _refusal(self, exc: OSError) -> RequestError:
        if is_full(exc):
            return RequestError("no_space", "%s: %s" % (self.path, exc.strerror))
        return RequestError(
            "lease_unusable",
            "the lease file %s cannot be used (%s); remove it, as its owner or root, or name "
            "another folder with --lease-dir" % (self.path, exc.strerror),
        )
