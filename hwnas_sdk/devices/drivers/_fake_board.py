"""The fake board: its work folder, its lease, and how long a network takes on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

Message = dict[str, Any]


class FailedError(Exception):
    """A request or item that is answered with an error."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.reply = {"type": "error", "code": code, "message": message, "retryable": False}
        self.reply.update(extra)


def modes_of(text: str) -> dict[str, int]:
    """The faults asked for: names with an optional number (1 when none is given)."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    return {name: int(number or 1) for name, _, number in pairs}


class Board:
    """Work folder and lease of the fake board."""

    def __init__(self, work: Path, modes: dict[str, int], *, seed: int, delay_s: float) -> None:
        self.work = work
        self.modes = modes
        self.seed = seed
        self.delay_s = delay_s
        self._lock_file: IO[str] | None = None
        self._n_busy = modes.get("busy", 0)
        self.n_events = 0
        (work / "journal").mkdir(parents=True, exist_ok=True)

    def journal(self, job: str) -> Path:
        """Where the events of `job` are kept."""
        return self.work / "journal" / f"{job}.jsonl"

    def take_lease(self, owner: str) -> str:
        """Lock the board for this process; a dead process loses its lock by itself."""
        if self._n_busy > 0:
            self._n_busy -= 1
            holder = {"owner": "somebody-else", "pid": 1, "age_s": 1.0}
            raise FailedError("board_busy", "in use", holder=holder, retryable=True)
        if self._lock_file is None:
            stream = (self.work / "lease.json").open("a+", encoding="utf-8")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                text = stream.read()
                stream.close()
                holder = json.loads(text) if text else {"owner": owner, "pid": None}
                raise FailedError("board_busy", "in use", holder=holder, retryable=True) from None
            stream.truncate(0)
            json.dump({"owner": owner, "pid": os.getpid(), "age_s": 0.0}, stream)
            stream.flush()
            self._lock_file = stream
        return f"lease-{os.getpid()}"

    def release(self) -> None:
        """Give the lock back."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def clean(self, keep: list[str] | None, *, journals: bool) -> tuple[int, int]:
        """Remove artifacts not in `keep` (None: keep all) and journals; returns files, bytes."""
        going = list((self.work / "journal").glob("*.jsonl")) if journals else []
        artifacts = (self.work / "artifacts").glob("*.*")
        going += [path for path in artifacts if keep is not None and path.stem not in keep]
        size = sum(path.stat().st_size for path in going)
        for path in going:
            path.unlink()
        return len(going), size

    def latency_ns(self, sha256: str, path: str, number: int = 0) -> float:
        """A plausible time for one inference of item `number`; raises when it cannot run."""
        if number and self.modes.get("crash_item", 0) == number:
            raise FailedError("runtime_crashed", "ended by SIGSEGV")
        try:
            content = (self.work / path).read_bytes()
        except OSError as exc:
            raise FailedError("artifact_missing", f"no file {path}: {exc}") from exc
        if hashlib.sha256(content).hexdigest() != sha256 or "wrong_hash" in self.modes:
            raise FailedError("artifact_corrupt", f"{path} is not what its hash says")
        share = int(sha256[:8], 16) / 2**32
        return 1e6 * (0.15 + 0.4 * len(content) / 2**20 + 0.6 * share)


def environment() -> Message:
    return {
        "governor": "performance",
        "freq_khz": [1_000_000],
        "freq_max_khz": 1_000_000,
        "boost": False,
        "temperature_c": 40.0,
        "load1": 0.0,
    }


def read_journal(path: Path) -> Iterator[Message]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return  # cut short by a crash
