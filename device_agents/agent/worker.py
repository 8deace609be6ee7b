"""The measuring process: imports one runtime once, then runs job after job."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from typing import Any

from device_agents import runtimes
from device_agents.agent import board, memory, process, protocol, quiet, schedule
from device_agents.agent.bench import Bench


def main(work: str, root: str, parent_pid: int, runtime_name: str | None) -> int:
    """Serve the supervisor until it closes our input."""
    process.die_with_parent(parent_pid)
    # Our output is the supervisor's; prints of any library go to standard error.
    out = os.dup(1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        view = memoryview(protocol.encode(message))
        while view:
            view = view[os.write(out, view) :]

    runtime = runtimes.load(runtime_name or runtimes.NAMES[0])
    description = runtime.describe()
    zygote = None
    if "error" not in description:
        runtime.prime()
        try:
            zygote = memory.Zygote(runtime)
        except OSError:
            traceback.print_exc()
    send({"ready": description, "nice": quiet.nice_allowed()})
    bench = Bench(runtime, description.get("version", ""), zygote, root)
    for line in sys.stdin.buffer:
        _run_job(bench, json.loads(line.decode("utf-8")), send, work)
    return 0


def _run_job(bench: Bench, job: dict[str, Any], send: Any, work: str) -> None:
    def emit(event: dict[str, Any]) -> None:
        send({"event": event})

    def note(item: str | None) -> None:
        send({"at": item})

    outcome = "done"
    run = schedule.JobRun(bench, job, emit, note, work)
    try:
        run.run()
    except schedule.DeadlineError:
        outcome = "deadline"
    environment = board.environment(bench.root, work)
    send({"end": outcome, "environment": environment, "t_ns": time.monotonic_ns()})
    quiet.set_nice(None)
    del run  # frees the sessions, after the answer
    gc.collect()
