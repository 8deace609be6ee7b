"""Polls what a board says of throttling once a second, beside the blocks, on another core."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any

from device_agents.agent import board

PERIOD_S = 1.0
_FRESH_NS = 2_500_000_000
"""A state this old says nothing of a block any more."""


class ThrottleWatch:
    """Watches while a job runs. Sticky bits that were set before say nothing of the job."""

    def __init__(self, root: str) -> None:
        """Read the state once; without one nothing is polled."""
        self._root = root
        self._polls = []  # type: list[tuple[int, list[str]]]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._avoid = []  # type: list[int]
        self._before = board.throttle_state(root)
        self._last = self._before
        self._thread = None  # type: threading.Thread | None
        if self._before is not None:
            self._remember(self._before, time.monotonic_ns())
            self._thread = threading.Thread(target=self._run, name="throttle", daemon=True)
            self._thread.start()

    def avoid(self, cores: list[int] | None) -> None:
        """Poll on other cores than these."""
        self._avoid = list(cores or ())

    def count(self, begin_ns: int, end_ns: int) -> int | None:
        """How often throttling was seen between two times; None where nothing tells.

        A block between two polls counts as throttled when the one before it saw it.
        """
        if self._thread is None:
            return None
        with self._lock:
            inside = [names for t_ns, names in self._polls if begin_ns <= t_ns <= end_ns]
            earlier = [poll for poll in self._polls if poll[0] < begin_ns][-1:]
        n = sum(bool(names) for names in inside)
        if n == 0 and earlier and earlier[0][1] and begin_ns - earlier[0][0] < _FRESH_NS:
            n = 1
        return n

    def finish(self) -> dict[str, Any] | None:
        """Stop; returns the "throttle" part of the last event, None where nothing tells.

        `seen` lists [begin_ns, end_ns, names]: between two polls, what the later one found set, or
        newly set since boot.
        """
        if self._thread is None or self._before is None:
            return None
        self._stop.set()
        self._thread.join(5.0)
        self._poll()
        seen = []  # type: list[list[Any]]
        for (earlier_ns, _), (t_ns, names) in zip(self._polls, self._polls[1:]):
            if names and seen and seen[-1][1] == earlier_ns and seen[-1][2] == names:
                seen[-1][1] = t_ns
            elif names:
                seen.append([earlier_ns, t_ns, names])
        last = self._last or {}
        return {
            "polls": len(self._polls),
            "before": self._before.get("sticky"),
            "after": last.get("sticky"),
            "raw": [self._before.get("raw"), last.get("raw")],
            "error": last.get("error"),
            "seen": seen,
        }

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            if self._avoid and hasattr(os, "sched_setaffinity"):
                with suppress(OSError):
                    others = set(os.sched_getaffinity(0)) - set(self._avoid)
                    os.sched_setaffinity(0, others or self._avoid)  # of this thread only
            self._poll()

    def _poll(self) -> None:
        state = board.throttle_state(self._root)
        if state is not None:
            self._remember(state, time.monotonic_ns())

    def _remember(self, state: dict[str, Any], t_ns: int) -> None:
        with self._lock:
            known = set((self._last or {}).get("sticky") or ())
            fresh = set(state.get("sticky") or ()) - known
            self._polls.append((t_ns, sorted({*(state.get("now") or ()), *fresh})))
            self._last = state
