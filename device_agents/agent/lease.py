"""The lease: one agent at a time measures on a board.

``lease.json`` says who holds it. The holder touches it several times per time-to-live; the file's
modification time is the board's *monotonic* clock, because boards without a battery jump in
calendar time. A lease is stale when its process is gone, the board was rebooted, or it was not
touched for its time-to-live; a holder that still exists then is killed before the board is taken.
Changes are made under an exclusive lock of ``lease.lock``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Iterator

from device_agents.agent import facts, protocol

_KILL_WAIT_S = 5.0


def boot_id(root: str) -> str:
    """Name of the present boot; empty where unknown."""
    return facts.read(root, "proc/sys/kernel/random/boot_id") or ""


def _started_ticks(pid: int) -> int | None:
    """When a process started (tells it from a later one of the same id); None when it is gone."""
    stat = facts.read("/", "proc/%d/stat" % pid)
    if stat is None:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class LeaseKeeper:
    """This agent's side of the lease."""

    def __init__(self, work: str, on_lost: Callable[[], None]) -> None:
        """Keep the lease of `work`; `on_lost` is called in a thread when somebody took it."""
        self._path = os.path.join(work, "lease.json")
        self._lock_path = os.path.join(work, "lease.lock")
        self._on_lost = on_lost
        self._stop = None  # type: threading.Event | None
        self._boot = boot_id("/")
        self.token = None  # type: str | None

    def take(self, owner: str, ttl_s: float) -> str:
        """Return the lease's token. Raises: RequestError "board_busy" when another holds it."""
        if self.token is not None:
            return self.token
        with self._locked():
            record = self._record()
            if record is not None:
                self._evict(record)
            token = os.urandom(8).hex()
            fields = {
                "token": token,
                "owner": owner,
                "pid": os.getpid(),
                "started_ticks": _started_ticks(os.getpid()),
                "boot_id": self._boot,
                "ttl_s": ttl_s,
            }
            scratch = self._path + ".tmp"
            with open(scratch, "w", encoding="utf-8") as stream:
                json.dump(fields, stream)
            self._touch(scratch)
            os.replace(scratch, self._path)
        self.token = token
        self._stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(token, ttl_s, self._stop), daemon=True)
        beat.start()
        return token

    def release(self) -> None:
        """Give the lease back; nothing happens when it is not ours."""
        if self.token is None:
            return
        if self._stop is not None:
            self._stop.set()
        with self._locked():
            record = self._record()
            if record is not None and record.get("token") == self.token:
                os.unlink(self._path)
        self.token = None

    def is_free(self) -> bool:
        """Whether nobody else who is alive holds the board."""
        with self._locked():
            record = self._record()
            mine = record is not None and record.get("token") == self.token
            return record is None or mine or not self._alive(record)

    def _beat(self, token: str, ttl_s: float, stop: threading.Event) -> None:
        while not stop.wait(ttl_s / 4.0):
            with self._locked():
                record = self._record()
                if stop.is_set():
                    return
                if record is not None and record.get("token") == token:
                    self._touch(self._path)
                    continue
            self.token = None
            self._on_lost()
            return

    def _evict(self, record: dict[str, Any]) -> None:
        """Return when the holder in `record` is gone, by itself or with our help."""
        if not self._alive(record):
            return
        pid, age_s = record["pid"], self._age_s()
        if age_s > record.get("ttl_s", 60.0):
            with suppress(OSError):  # not ours to kill: it stays the holder
                os.kill(pid, signal.SIGKILL)  # its worker dies with it
            end_s = time.monotonic() + _KILL_WAIT_S
            while self._alive(record) and time.monotonic() < end_s:
                time.sleep(0.01)
            if not self._alive(record):
                return
        holder = {"owner": record.get("owner"), "pid": pid, "age_s": round(age_s, 3)}
        message = "the board is in use by %s (process %s)" % (holder["owner"], pid)
        raise protocol.RequestError("board_busy", message, retryable=True, holder=holder)

    def _alive(self, record: dict[str, Any]) -> bool:
        same_boot = record.get("boot_id") == self._boot
        started = _started_ticks(record["pid"]) if same_boot else None
        return started is not None and started == record.get("started_ticks")

    def _record(self) -> dict[str, Any] | None:
        """The lease on disk; None when there is none, or it is damaged."""
        try:
            with open(self._path, encoding="utf-8") as stream:
                record = json.load(stream)
        except (OSError, ValueError):
            return None
        sound = isinstance(record, dict) and isinstance(record.get("pid"), int)
        return record if sound else None

    def _age_s(self) -> float:
        try:
            return max(0.0, time.monotonic() - os.stat(self._path).st_mtime)
        except OSError:
            return 0.0

    @staticmethod
    def _touch(path: str) -> None:
        now_s = time.monotonic()
        os.utime(path, (now_s, now_s))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
