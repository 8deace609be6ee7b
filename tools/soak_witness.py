"""Two witnesses of a soak test that do not know of each other: the board's journals, the stores.

The agent journals a network as finished before the host hears of it; the host deletes the journal
after it has stored the results. `JournalKeeper` opens every journal while it exists, so that its
content outlives it. `judge` then compares, for each run on its own:

lost      a network that a journal calls finished without a record of that very job in a store, or a
          record that was in a store once and is gone or different;
repeated  a network of one run that the board finished more often than there are attempts of it in
          the store, that has two valid records, or was measured again after a valid one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Key = tuple[str, str, int]


@dataclass
class Journal:
    """What one journal says, without its samples."""

    boot: str
    finished: list[str] = field(default_factory=list)
    first_t_ns: int | None = None
    last_t_ns: int | None = None
    last_event: str = ""

    def read(self, text: bytes) -> None:
        """Take the whole content of the journal."""
        self.finished = []
        for line in text.splitlines():
            if b'"samples_ns"' in line:
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                self.last_event = event["event"]
                if event["event"] == "finished":
                    self.finished.append(event["item"])
                # The end of a job whose agent died is written by the next agent, later.
                if event["event"] != "job_done" and event["t_ns"] is not None:
                    self.first_t_ns = self.first_t_ns or event["t_ns"]
                    self.last_t_ns = event["t_ns"]


class JournalKeeper(threading.Thread):
    """Opens every journal as soon as it is there; an open file can be read when it is deleted."""

    def __init__(self, folders: Callable[[], Iterable[Path]], boot: Callable[[], str]) -> None:
        """Watch `folders()`; `boot()` names what the clock of the board started with."""
        super().__init__(name="journal-keeper", daemon=True)
        self._folders, self._boot = folders, boot
        self._open: dict[str, tuple[int, Journal]] = {}
        self._read: dict[str, Journal] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Poll; a journal lives for seconds, a poll takes milliseconds."""
        while not self._stopped.wait(0.02):
            for folder in self._folders():
                for path in folder.glob("*.jsonl"):
                    self._keep(path)

    def _keep(self, path: Path) -> None:
        with self._lock, contextlib.suppress(OSError):
            if path.stem not in self._open and path.stem not in self._read:
                descriptor = os.open(path, os.O_RDONLY)
                self._open[path.stem] = descriptor, Journal(self._boot())

    def phase(self) -> str:
        """How far the newest journal is that is not at its end; "" without one."""
        with self._lock:
            newest = list(self._open.values())[-1:]
        for descriptor, _ in newest:
            with contextlib.suppress(OSError):
                size = os.fstat(descriptor).st_size
                tail = os.pread(descriptor, 65536, max(0, size - 65536)).splitlines()
                for line in reversed(tail):
                    with contextlib.suppress(ValueError):
                        event = json.loads(line)
                        return str(event["event"])
        return ""

    def journals(self) -> dict[str, Journal]:
        """Every journal so far by job; those that were deleted are read for the last time."""
        with self._lock:
            for job, (descriptor, journal) in list(self._open.items()):
                seen = os.fstat(descriptor)
                journal.read(os.pread(descriptor, seen.st_size, 0))
                if seen.st_nlink == 0:
                    os.close(descriptor)
                    self._read[job] = journal
                    del self._open[job]
            return {**self._read, **{job: journal for job, (_, journal) in self._open.items()}}

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self.is_alive():
            self.join()
        self.journals()
        with self._lock:
            for descriptor, _ in self._open.values():
                os.close(descriptor)
            self._open.clear()


@dataclass(frozen=True)
class Row:
    """One stored measurement."""

    status: str
    latency_ms: float | None
    n_samples: int
    job: str


class StoreWitness:
    """One store, read from outside while hosts write to it."""

    def __init__(self, path: Path) -> None:
        """Watch the store at `path`; it need not exist yet."""
        self.path = path
        self.rows: dict[Key, Row] = {}
        self.run_of_job: dict[str, str] = {}
        self.changed: list[str] = []

    def look(self) -> None:
        """Read the store again; call it whenever a host ended, however it ended."""
        rows, jobs = self._read()
        for key, row in self.rows.items():
            if rows.get(key) != row:
                self.changed.append(f"{key} was {row}, is {rows.get(key)}")
        self.rows = rows
        self.run_of_job |= jobs
        self.run_of_job |= {row.job: run for (run, _, _), row in rows.items()}

    def _read(self) -> tuple[dict[Key, Row], dict[str, str]]:
        if not self.path.exists():
            return {}, {}
        uri = f"file:{self.path}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as base:
            try:
                found = base.execute(
                    "SELECT run_id, item, attempt, status, latency_ms, n_samples,"
                    " json_extract(details, '$.job') FROM measurement"
                ).fetchall()
                jobs = dict(base.execute("SELECT id, run_id FROM job").fetchall())
            except sqlite3.OperationalError:  # killed before the first migration
                return {}, {}
        return {tuple(row[:3]): Row(*row[3:]) for row in found}, jobs


@dataclass(frozen=True)
class Judgement:
    """What the witnesses disagree about; counts of what they saw."""

    lost: tuple[str, ...]
    repeated: tuple[str, ...]
    overlaps: tuple[str, ...]
    measurements: int
    valid: int
    finished_on_board: int
    unwitnessed: int


def judge(stores: Sequence[StoreWitness], journals: Mapping[str, Journal]) -> Judgement:
    """Compare the journals of one board with the stores of the hosts that used it."""
    run_of_job = {job: run for store in stores for job, run in store.run_of_job.items()}
    rows = {key: row for store in stores for key, row in store.rows.items()}
    recorded = {(row.job, item) for (_, item, _), row in rows.items()}
    attempts = Counter((run, item) for run, item, _ in rows)
    lost = [text for store in stores for text in store.changed]
    finished: Counter[tuple[str, str]] = Counter()
    for job, journal in journals.items():
        for item in journal.finished:
            run = run_of_job.get(job, "no run")
            finished[run, item] += 1
            if (job, item) not in recorded:
                lost.append(f"{item} of run {run}: finished by job {job}, not stored")
    repeated = [
        f"{item} of run {run}: finished {n} times, stored {attempts[run, item]}"
        for (run, item), n in finished.items()
        if n > attempts[run, item]
    ]
    repeated += _after_valid(rows)
    jobs = {row.job for row in rows.values()}
    return Judgement(
        lost=tuple(lost),
        repeated=tuple(repeated),
        overlaps=tuple(_overlaps(journals)),
        measurements=len(rows),
        valid=sum(row.status == "valid" for row in rows.values()),
        finished_on_board=sum(finished.values()),
        unwitnessed=len(jobs - set(journals)),
    )


def _after_valid(rows: Mapping[Key, Row]) -> list[str]:
    """Attempts that came after a valid one."""
    first_valid: dict[tuple[str, str], int] = {}
    for (run, item, attempt), row in rows.items():
        if row.status == "valid":
            first_valid[run, item] = min(attempt, first_valid.get((run, item), attempt))
    return [
        f"{item} of run {run}: attempt {attempt} after a valid one"
        for run, item, attempt in rows
        if attempt > first_valid.get((run, item), attempt)
    ]


def _overlaps(journals: Mapping[str, Journal]) -> list[str]:
    """Jobs that measured on one board at one time (by the board's own clock)."""
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for job, journal in journals.items():
        if journal.first_t_ns is not None and journal.last_t_ns is not None:
            span = (journal.first_t_ns, journal.last_t_ns, job)
            spans.setdefault(journal.boot, []).append(span)
    found = []
    for ordered in map(sorted, spans.values()):
        for (_, end, job), (start, _, other) in itertools.pairwise(ordered):
            if start < end:
                found.append(f"jobs {job} and {other} overlap by {(end - start) / 1e9:.2f} s")
    return found


def parsed(text: str) -> Any:
    """JSON of `text`; None when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
