"""Events become progress bars on a terminal and plain lines elsewhere, always on stderr.

Nothing is shown for what is over within a second.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TextIO

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.events import Event

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SHOW_AFTER_S = 1.0
LINE_EVERY_S = 10.0  # plain lines: at most one per task and this long ...
LINE_STEP = 0.25  # ... unless this share of the task was done since the last one


class Progress:
    """An `EventSink`. Events may come from any thread."""

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        show_after_s: float = SHOW_AFTER_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._quiet = quiet
        self._show_after_s = show_after_s
        self._display: _Bars | _Lines = (
            _Bars(stream) if stream.isatty() else _Lines(stream, clock=clock)
        )
        self._lock = threading.RLock()
        self._latest: dict[str, Event] = {}
        self._timer: threading.Timer | None = None
        self._shown = False

    def __call__(self, event: Event) -> None:
        """Take one step."""
        if self._quiet:
            return
        with self._lock:
            self._latest[event.task] = event
            if self._shown:
                self._display.update(event)
            elif self._timer is None:
                self._timer = threading.Timer(self._show_after_s, self._show)
                self._timer.daemon = True
                self._timer.start()

    def _show(self) -> None:
        with self._lock:
            if self._timer is None:  # closed meanwhile
                return
            self._shown = True
            for event in self._latest.values():
                self._display.update(event)

    def close(self) -> None:
        """Take the display down; a later event starts anew."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if self._shown:
                self._display.close()
            self._shown = False
            self._latest.clear()


class _Lines:
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO, *, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}  # task -> (time, steps) of its last line

    def update(self, event: Event) -> None:
        now_s = self._clock.monotonic_s()
        ended = event.total is not None and event.done >= event.total
        if event.task in self._last:
            line_s, line_done = self._last[event.task]
            due = now_s - line_s >= LINE_EVERY_S
            if event.total:
                due = due or event.done - line_done >= LINE_STEP * event.total
            if not (due or (ended and event.done > line_done)):
                return
        self._last[event.task] = (now_s, event.done)
        count = f" {event.done}/{event.total}" if event.total else ""
        message = f"  {event.message}" if event.message else ""
        print(f"{event.task}{count}{message}", file=self._stream, flush=True)

    def close(self) -> None:
        self._last.clear()


class _Bars:
    """Rich bars, one per task."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def update(self, event: Event) -> None:
        bars = self._started()
        if event.task not in self._tasks:
            self._tasks[event.task] = bars.add_task(event.task, total=event.total, note="")
        bars.update(
            self._tasks[event.task], completed=event.done, total=event.total, note=event.message
        )

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()

    def _started(self) -> Bars:
        if self._bars is None:
            from rich import progress
            from rich.console import Console

            self._bars = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bars.start()
        return self._bars
