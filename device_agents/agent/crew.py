"""The workers, one per runtime, each started when it is first needed."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable

from device_agents import runtimes
from device_agents.agent import process

START_LIMIT_S = 80.0
"""For a worker to import its runtime (15 s under emulation)."""


class Crew:
    """Starts, knows and ends the workers.

    Attributes:
        known: runtime -> what its worker said of it last: {version, ...} or {"error": ...}.
        nice_allowed: whether a worker can raise its priority; False before one said so.
    """

    def __init__(self, work: str, root: str, post: Callable[[Any, Any], None]) -> None:
        """Workers serve the folder `work`; `post(worker, message)` is called in threads."""
        self._work = work
        self._root = root
        self._post = post
        self._workers = {}  # type: dict[str, process.Worker]
        self.known = {}  # type: dict[str, dict[str, Any]]
        self.nice_allowed = False

    def get(self, runtime: str) -> process.Worker | None:
        """The runtime's worker, if there is one."""
        return self._workers.get(runtime)

    def has(self, worker: process.Worker) -> bool:
        """Whether `worker` is one of ours, not one that was killed."""
        return self._workers.get(worker.runtime) is worker

    @property
    def pids(self) -> list[int]:
        """Processes of all workers."""
        return [worker.pid for worker in self._workers.values()]

    def need(self, runtime: str) -> dict[str, Any] | None:
        """Start the runtime's worker unless there is one; returns why it cannot be started."""
        if runtime in self._workers:
            return None
        command = [sys.executable, sys.argv[0], "--work", self._work, "--sysroot", self._root]
        command += ["--worker", str(os.getpid()), "--runtime", runtime]
        try:
            worker = process.Worker(command, self._post)
        except OSError as exc:
            message = "cannot start %s: %s" % (sys.executable, exc.strerror)
            return {"error": {"code": "runtime_missing", "message": message}}
        worker.runtime = runtime
        worker.limit_s = time.monotonic() + START_LIMIT_S
        self._workers[runtime] = worker
        return None

    def drop(self, runtime: str) -> int:
        """Kill the runtime's worker and confirm; returns its exit status, 0 without one."""
        worker = self._workers.pop(runtime, None)
        return 0 if worker is None else worker.kill()

    def drop_all(self) -> None:
        """Kill every worker."""
        for runtime in list(self._workers):
            self.drop(runtime)

    def next_limit_s(self) -> float | None:
        """When the first of those that are starting is too late, on the monotonic clock."""
        return min([w.limit_s for w in self._workers.values() if w.ready is None], default=None)

    def late(self) -> list[str]:
        """Runtimes whose worker took too long to start; it is killed."""
        now_s = time.monotonic()
        found = [n for n, w in self._workers.items() if w.ready is None and now_s >= w.limit_s]
        for runtime in found:
            self.drop(runtime)
        return found

    def describe(self) -> dict[str, Any]:
        """The "runtimes" part of a probe: imported where a worker did, else only looked up."""
        answer = dict(self.known)
        for name in runtimes.NAMES[1:]:
            if name not in answer and runtimes.known(name):
                version = runtimes.load(name).installed_version()
                if version is None:
                    answer[name] = runtimes.missing(name, runtimes.load(name).HINT)
                else:
                    answer[name] = {"version": version}
        return answer
