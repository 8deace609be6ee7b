"""A host as its user sees it: the `hwnas` command, run as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from qemu_board import Board

# Exit status 5: something has no valid measurement yet, because a deadline passed or a clock ran
# off on a busy machine. Wrong outputs end so too: `OUTPUT_FLAGS` are looked for beside it.
MEASURED = {0, 5}
OUTPUT_FLAGS = {"output_mismatch", "output_not_finite", "output_unchecked"}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered.

    Attributes:
        status: exit status.
        data: the JSON document on standard output; None when there is none.
        errors: standard error.
        wall_s: how long it took, from start to end of the process.
    """

    status: int
    data: Any
    errors: str
    wall_s: float


@dataclass
class Host:
    """A data folder and an environment.

    Attributes:
        home: the data folder (HWNAS_HOME).
        environ: further variables for the command.
        taken_s: wall seconds of each command that was run, by its first two words.
    """

    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    taken_s: dict[str, float] = field(default_factory=dict)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `hwnas` with `words` and ``--json``."""
        return subprocess.Popen(
            [sys.executable, "-m", "hwnas_sdk.cli.main", *words, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HWNAS_HOME": str(self.home), **self.environ},
        )

    def finish(self, process: subprocess.Popen[str], *, timeout_s: float = 1200.0) -> Said:
        """Wait for a started command."""
        began_s = time.monotonic()
        try:
            out, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            pytest.fail(f"{process.args!r:.300} took more than {timeout_s:.0f} s: {errors[-1000:]}")
        data = json.loads(out) if out.strip() else None
        return Said(process.returncode, data, errors, time.monotonic() - began_s)

    def ask(self, *words: str, timeout_s: float = 1200.0) -> Said:
        """Run a command to its end, whatever that is."""
        said = self.finish(self.start(*words), timeout_s=timeout_s)
        self.taken_s[" ".join(words[:2])] = said.wall_s
        return said

    def run(self, *words: str, timeout_s: float = 1200.0) -> Any:
        """Run a command that must succeed; returns its JSON document."""
        said = self.ask(*words, timeout_s=timeout_s)
        assert said.status == 0, f"hwnas {' '.join(words)}: {said.status}\n{said.errors}"
        return said.data

    def become(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the test's own process be this host."""
        monkeypatch.setenv("HWNAS_HOME", str(self.home))
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)


@dataclass
class Reached:
    """A board as a host knows it: added, trusted, set up.

    Attributes:
        way: "ssh" or "adb".
        name: in the host's inventory.
        said: what each verb of the way there answered.
    """

    way: str
    host: Host
    board: Board
    name: str
    said: dict[str, Said]

    @property
    def uri(self) -> str:
        """Its address."""
        return self.board.ssh_uri if self.way == "ssh" else self.board.adb_uri


def nothing_left(board: Board) -> bool:
    """Whether the board is as if nobody had been there, processes considered."""
    deadline_s = time.monotonic() + 10.0
    while board.processes():
        if time.monotonic() > deadline_s:
            pytest.fail(f"left on the board: {board.processes()}")
        time.sleep(0.2)
    return True
