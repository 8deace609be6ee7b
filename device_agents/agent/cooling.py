"""Waiting until a board is cool enough to begin."""

from __future__ import annotations

import time
from typing import Any, Callable

from device_agents.agent import facts

_STEP_S = 0.5


def wait(
    options: dict[str, Any], files: list[str], check: Callable[[], None]
) -> dict[str, Any] | None:
    """Wait until the board is below ``options.max_start_temperature_c``, at most `start_wait_s`.

    Returns what came of it (the host judges), None when nothing was asked for.

    Args:
        options: of the job.
        files: of `facts.temperature_files`.
        check: called while waiting; raises to stop.
    """
    limit_c = options["max_start_temperature_c"]
    if limit_c is None:
        return None
    begin_s = time.monotonic()
    while True:
        now_c = facts.temperature_c(files)
        waited_s = time.monotonic() - begin_s
        is_cool = None if now_c is None else now_c <= limit_c
        if is_cool is not False or waited_s >= (options["start_wait_s"] or 0.0):
            return {
                "limit_c": limit_c,
                "temperature_c": now_c,
                "waited_s": waited_s,
                "reached": is_cool,
            }
        check()
        time.sleep(_STEP_S)
