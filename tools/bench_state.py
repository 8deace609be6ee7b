"""What a page-making tool keeps between its runs, so that a killed command goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hwnas_sdk.core.files import write_bytes_atomic


class BenchState:
    """Answers by name, in a JSON file that belongs to one question.

    Attributes:
        question: what is asked; a file that answers another one ends the program.
        answers: what was computed, by name.
    """

    def __init__(self, path: Path, question: Mapping[str, Any]) -> None:
        """Read the file if there is one. Raises: SystemExit for another question."""
        self._path = path
        self.question = dict(question)
        self.answers: dict[str, Any] = {}
        self._read()

    def _read(self) -> None:
        """Take what the file has and this run has not."""
        if self._path.exists():
            stored = json.loads(self._path.read_text())
            if stored["question"] != self.question:
                sys.exit(f"{self._path} answers another question; delete it or name another")
            self.answers = {**stored["answers"], **self.answers}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the file, with everything that is in it, against commands that share it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()
            yield

    def compute(self, name: str, work: Callable[[], Any]) -> None:
        """Do `work` unless its answer is there; keep the answer and say how long it took."""
        if name in self.answers:
            return
        started = time.monotonic()
        self.answers[name] = work()
        with self.alone():
            stored = {"question": self.question, "answers": self.answers}
            write_bytes_atomic(self._path, json.dumps(stored).encode())
        print(f"{time.monotonic() - started:6.1f} s  {name}", file=sys.stderr, flush=True)
