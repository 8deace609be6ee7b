"""Tests marked `alone` run with nothing beside them, also where pytest-xdist runs several."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Wait until this test may run: beside any number of others, or alone.

    All processes of a run name the same `folder`. The locks are files, so they end with the
    process that holds them. Whoever comes passes a gate first; a test that waits to be alone stays
    in it, or others would go on overtaking that test.
    """
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with (
        _locked(folder / "gate.lock", fcntl.LOCK_EX) as leave_gate,
        _locked(folder / "room.lock", how),
    ):
        leave_gate()
        yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[Callable[[], None]]:
    """Hold a lock; what is given unlocks it earlier."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, how)
        yield lambda: fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        # Said, not left to close(): a child that the test forked would keep the lock.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
