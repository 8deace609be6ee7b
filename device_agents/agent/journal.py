"""The journal of one job: its events, one JSON object per line, on the board's disk."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
from contextlib import suppress
from typing import Any

from device_agents.agent import protocol


class Tally:
    """Sums over the events of a job, for its last event and for going on after a crash."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.started = False
        self.done = False
        self.totals_ns = dict.fromkeys(("warmup_ns", "timed_ns", "load_ns", "sentinel_ns"), 0)
        self.over = set()  # type: set[str]
        self.cores = None  # type: list[int] | None
        self.n_sentinel = 0
        self.blocks = {}  # type: dict[str, dict[str, Any]]

    def add(self, event: dict[str, Any]) -> None:
        """Take one event."""
        self.last_seq = event["seq"]
        kind, item = event["event"], event.get("item")
        totals = self.totals_ns
        if kind == "job_started":
            self.started = True
            self.cores = event.get("options", {}).get("effective", {}).get("cores")
        elif kind == "job_done":
            self.done = True
        elif kind == "loaded":
            totals["load_ns"] += event["load_ns"] + event["first_ns"]
        elif kind == "warmed":
            key = "sentinel_ns" if item == protocol.SENTINEL else "warmup_ns"
            totals[key] += event["duration_ns"]
        elif kind == "block":
            length_ns = sum(event["samples_ns"])
            if item == protocol.SENTINEL:
                totals["sentinel_ns"] += length_ns
                self.n_sentinel += 1
                return
            totals["timed_ns"] += length_ns
            state = self.blocks.setdefault(str(item), {"medians_ns": [], "timed_ns": 0})
            state["medians_ns"].append(statistics.median(event["samples_ns"]))
            state["timed_ns"] += length_ns
        elif kind in ("finished", "failed"):
            self.over.add(str(item))

    def resume(self) -> dict[str, Any]:
        """What a new worker has to know to go on."""
        return {"n_sentinel": self.n_sentinel, "items": self.blocks, "cores": self.cores}


class Journal:
    """An open journal; the only writer of its file, which it keeps locked."""

    def __init__(self, path: str, *, create: bool) -> None:
        """Open `path`.

        Raises: FileExistsError when it is to be created and exists; BlockingIOError when another
            agent writes it; OSError.
        """
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
        self._descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise
        except OSError:
            pass  # a file system without locks: the lease alone keeps writers apart

    def append(self, line: bytes, *, durable: bool) -> None:
        """Add a line; `durable` ones survive a power cut.

        Raises: OSError; then nothing of the line is left in the file (if that can be helped).
        """
        length = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, length)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def path_of(work: str, job: str) -> str:
    """Where the journal of `job` lies."""
    return os.path.join(work, "journal", job + ".jsonl")


def read(path: str) -> tuple[list[tuple[int, bytes]], Tally, int]:
    """Return (seq, line) of each event, their tally, and the length of the sound part.

    Reading ends at a line that was cut short (or damaged). Raises: FileNotFoundError, OSError.
    """
    lines = []
    tally = Tally()
    length = 0
    with open(path, "rb") as stream:
        for line in stream:
            try:
                if not line.endswith(b"\n"):
                    break
                event = json.loads(line.decode("utf-8"))
                tally.add(event)
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            lines.append((event["seq"], line))
            length += len(line)
    return lines, tally, length


def is_written(path: str) -> bool:
    """Whether a living agent has the journal open. Raises: FileNotFoundError, OSError."""
    try:
        Journal(path, create=False).close()
    except BlockingIOError:
        return True
    return False


def close_crashed(path: str, job: str, event: dict[str, Any]) -> bytes | None:
    """Give a journal whose writer died its last event; returns that line, None if it has one.

    Where the disk is full, the line is returned all the same: whoever asks must get an answer.
    Raises: BlockingIOError when its writer lives; OSError.
    """
    journal = Journal(path, create=False)
    try:
        _, tally, length = read(path)
        if tally.done:
            return None
        head = {"type": "event", "seq": tally.last_seq + 1, "job": job, "event": "job_done"}
        line = protocol.encode({**head, **tally.totals_ns, **event})
        try:
            if _has_more_lines(path, length):
                # A hole, not a torn end (a power cut can leave one): keep what lies behind it.
                shutil.copyfile(path, path + ".damaged")
            os.truncate(path, length)
            journal.append(line, durable=True)
        except OSError as exc:
            if not protocol.is_full(exc):
                raise
        return line
    finally:
        journal.close()


def _has_more_lines(path: str, length: int) -> bool:
    """Whether a whole line follows the one at `length`."""
    with open(path, "rb") as stream:
        stream.seek(length)
        stream.readline()
        return stream.readline().endswith(b"\n")
