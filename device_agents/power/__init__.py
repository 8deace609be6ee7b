"""Energy counters. A source is a module with two functions.

``describe(root)`` says what it can read: {source, scope, reason, detail, hint}; `reason` is None
when it can. ``open_counter(root)`` returns a function that returns microjoules since it was opened.
"""

from __future__ import annotations

from typing import Any, Callable

from device_agents.power import none, rapl

Counter = Callable[[], int]


def describe(root: str) -> dict[str, Any]:
    """Return what this board's energy source is, or why there is none."""
    found = rapl.describe(root)
    return none.describe(root) if found["reason"] == "no_sensor" else found


def open_counter(root: str) -> Counter | None:
    """Return the board's energy counter, None where `describe` gives a reason."""
    return None if describe(root)["reason"] is not None else rapl.open_counter(root)
