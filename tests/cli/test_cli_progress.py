"""Progress on stderr: late, throttled, and gone when the work is."""

from __future__ import annotations

import io
import os
import pty
import time
from datetime import UTC, datetime

from hwnas_sdk.cli.progress import Progress
from hwnas_sdk.core.events import Event


class _FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


def _shown_at_once(stream: io.StringIO, clock: _FakeClock) -> Progress:
    progress = Progress(stream, show_after_s=0.0, clock=clock)
    progress(Event("measure", 0, 100))
    deadline_s = time.monotonic() + 10
    while not stream.getvalue() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return progress


def test_short_work_shows_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream, show_after_s=30.0)
    for i in range(11):
        progress(Event("measure", i, 10))
    progress.close()
    assert stream.getvalue() == ""


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True, show_after_s=0.0)
    progress(Event("measure", 0, 10))
    time.sleep(0.05)
    progress.close()
    assert stream.getvalue() == ""


def test_plain_lines_are_few() -> None:
    stream, clock = io.StringIO(), _FakeClock()
    progress = _shown_at_once(stream, clock)
    for i in range(1, 101):
        clock.now_s += 0.01
        progress(Event("measure", i, 100, message=f"cell {i}"))
    progress.close()
    assert stream.getvalue().splitlines() == [
        "measure 0/100",
        "measure 25/100  cell 25",
        "measure 50/100  cell 50",
        "measure 75/100  cell 75",
        "measure 100/100  cell 100",
    ]


def test_a_slow_task_says_something_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), _FakeClock()
    progress = _shown_at_once(stream, clock)
    for i in range(1, 4):
        clock.now_s += 11
        progress(Event("measure", i, 100))
    assert len(stream.getvalue().splitlines()) == 4


def test_a_terminal_gets_bars_and_a_clean_line_afterwards() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        progress = Progress(terminal, show_after_s=0.0)
        progress(Event("measure [local]", 1, 4, message="cell [0]"))
        time.sleep(0.3)
        progress(Event("measure [local]", 2, 4, message="cell [1]"))
        progress.close()
        terminal.flush()
        text = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "measure [local]" in text
    assert "\x1b[" in text
