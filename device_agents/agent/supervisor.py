"""The process the host talks to: requests, the lease, deadlines; never measures itself.

One thread decides everything; others only feed its inbox (requests, the workers, the lease's
heartbeat, signals) or write what it sends. So a request is answered at once while a job runs, and
what reaches the host is in the journal's order. What a request means is in requests.py.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from device_agents import runtimes
from device_agents.agent import crew, facts, process, protocol, undo
from device_agents.agent.lease import LeaseKeeper
from device_agents.agent.requests import Requests

if TYPE_CHECKING:
    from device_agents.agent.job import Job
    from device_agents.agent.watch import ThrottleWatch

_FLUSH_S = 5.0
_EXIT_INTERNAL = 70
_SILENT_SHARE = 0.5
"""Of the host's timeout: an idle agent whose host was silent this long may be replaced."""


class Supervisor:
    """Serves one host over stdin and stdout.

    Attributes:
        work, root: the work folder, and where /sys and /proc are found.
        out: takes lines for the host.
        lease, crew, settings: who holds the board, its workers, what was changed on it.
        job: the one that runs, or None.
        probes: ids of probes that wait for the first runtime's import.
        exit_status: None while serving.
    """

    def __init__(
        self, work: str, root: str, lease_dir: str, host_timeout_s: float | None = None
    ) -> None:
        """Work in the folder `work`; the lease lies in `lease_dir`."""
        self.work = work
        self.root = root
        self.lease_dir = lease_dir
        self.settings = undo.Settings(work, root, lease_dir)
        self.settings.guard()  # before the first thread
        self._inbox = queue.SimpleQueue()  # type: queue.SimpleQueue[tuple[str, Any, Any]]
        # Stray prints of any library go to standard error.
        self.out = protocol.Output(os.dup(1))
        os.dup2(2, 1)
        self.lease = LeaseKeeper(
            lease_dir, work, lambda: self._inbox.put(("lease_lost", None, None))
        )
        self.crew = crew.Crew(work, root, lambda w, m: self._inbox.put(("worker", m, w)))
        self._requests = Requests(self)
        self.probes = []  # type: list[Any]
        self.job: Job | None = None
        self._watch: ThrottleWatch | None = None
        self._host_timeout_s = host_timeout_s
        self._heard_s = time.monotonic()
        self._host_gone = False
        self._input_over = False
        self.exit_status = None  # type: int | None

    def serve(self) -> int:
        """Answer until the host says goodbye or is gone (its job is finished first); then exit."""
        try:
            self._serve()
        except BaseException:
            traceback.print_exc()
            self.exit_status = _EXIT_INTERNAL
        try:
            self.settings.close()
        except BaseException:
            traceback.print_exc()  # the guardian tries again
        sys.stderr.flush()
        # Threads sit in reads that never return; an ordinary exit would wait for them.
        os._exit(self.exit_status or 0)

    def _serve(self) -> None:
        process.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _: self._inbox.put(("signal", n, None)))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a dropped link is no reason to stop
        if self._host_timeout_s is not None:
            self.lease.note(silent_after_s=_SILENT_SHARE * self._host_timeout_s)
        self.lease.note(host_s=self._heard_s)
        with suppress(OSError):
            os.utime(sys.argv[0])  # agents that nobody uses grow old and are removed
        threading.Thread(target=self._listen, name="input", daemon=True).start()
        while self.exit_status is None:
            try:
                kind, payload, sender = self._inbox.get(timeout=self._patience_s())
            except queue.Empty:
                kind, payload, sender = "nothing", None, None
            self._handle(kind, payload, sender)
            self._enforce_deadlines()
            if self._host_gone and self.job is None and self.exit_status is None:
                self.exit_status = 0
        self.crew.drop_all()
        self.settings.restore()
        self.lease.release()
        self.out.close(_FLUSH_S)

    def _handle(self, kind: str, payload: Any, sender: Any) -> None:
        if kind == "line":
            self._on_line(payload)
        elif kind == "worker":
            self._on_worker(sender, payload)
        elif kind == "eof":
            self._input_over = True
            self._host_is_gone()
        elif kind == "signal":
            self.stop_job("cancelled", "the agent was told to end")
            self.exit_status = 128 + payload
        elif kind == "lease_lost":
            self.stop_job("lease_lost", "another agent took the board")
            self.settings.restore()

    def _listen(self) -> None:
        def on_line(line: bytes | None) -> None:
            self._inbox.put(("eof" if line is None else "line", line, None))

        protocol.read_lines(0, on_line)

    # --- the host and time --------------------------------------------------------------------

    def _on_line(self, line: bytes) -> None:
        self._heard_s = time.monotonic()
        self._host_gone = self._input_over
        self.lease.note(host_s=self._heard_s)
        reply = self._requests.answer(line)
        if reply is not None:
            self.out.send(protocol.encode(reply))
            if reply["type"] == "accepted":
                self._begin()

    def _host_is_gone(self) -> None:
        if not self._host_gone:
            self._host_gone = True
            self.lease.note(host_s=None)
            self.lease.publish()

    def _silence_limit_s(self) -> float | None:
        if self._host_timeout_s is None or self._host_gone:
            return None
        return self._heard_s + self._host_timeout_s

    def _patience_s(self) -> float | None:
        """How long nothing may happen before a deadline has to be looked at."""
        limits = [self.crew.next_limit_s(), self._silence_limit_s()]
        limits.append(None if self.job is None else self.job.kill_at_s)
        known = [limit for limit in limits if limit is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _enforce_deadlines(self) -> None:
        now_s = time.monotonic()
        if self.job is not None and now_s >= self.job.kill_at_s:
            self.stop_job("deadline", "the job's deadline passed")
        for runtime in self.crew.late():
            message = "importing the runtime took more than %.0f s" % crew.START_LIMIT_S
            self._on_ready(runtime, {"error": {"code": "runtime_hung", "message": message}})
        silence_s = self._silence_limit_s()
        if silence_s is not None and now_s >= silence_s:
            sys.stderr.write("hwnas-agent: the host is silent, taken for gone\n")
            self._host_is_gone()

    # --- the worker and the job ---------------------------------------------------------------

    def need_worker(self, runtime: str) -> None:
        """Start the runtime's worker unless there is one."""
        error = self.crew.need(runtime)
        if error is not None:
            self._on_ready(runtime, error)
        else:
            self._publish()

    def _publish(self) -> None:
        """Tell other agents of this board what we do, and whom they have to outlive."""
        guardian = self.settings.guardian_pid
        children = self.crew.pids + ([] if guardian is None else [guardian])
        self.lease.note(job=None if self.job is None else self.job.name)
        self.lease.publish(children)

    def _begin(self) -> None:
        """Have a worker run the job that was accepted, on a board made steady for it."""
        from device_agents.agent import tidy, watch

        job = self.job
        assert job is not None
        options = job.request["options"]
        tidy.prune(self.work, job.hashes)
        named = options["affinity"] if isinstance(options["affinity"], list) else None
        job.prepared = self.settings.apply(options["governor"], named or facts.allowed_cores())
        self._watch = watch.ThrottleWatch(self.root)
        self._publish()
        if runtimes.known(job.runtime):
            self._go_on()
        else:
            message = "this agent has no runtime %r" % job.runtime
            self._end_job("crashed", "runtime_missing", message)

    def _go_on(self) -> None:
        """Have a worker run (the rest of) the job; starts one when needed."""
        job = self.job
        assert job is not None
        worker = self.crew.get(job.runtime)
        if worker is not None and worker.ready is not None:
            if "error" not in worker.ready:
                worker.send(job.for_worker())
                return
            self.crew.drop(job.runtime)  # perhaps the runtime has been installed meanwhile
        self.need_worker(job.runtime)

    def _on_worker(self, worker: process.Worker, message: dict[str, Any] | None) -> None:
        if not self.crew.has(worker):
            return  # last words of one that was killed
        if message is None:
            self._on_worker_end(worker)
        elif "ready" in message:
            worker.ready = message["ready"]
            self.crew.nice_allowed = message["nice"]
            self._on_ready(worker.runtime, message["ready"])
        elif self.job is not None and self.job.runtime == worker.runtime:
            if "at" in message:
                self.job.at = message["at"]
            elif "event" in message:
                self._on_event(message["event"])
            elif "end" in message:
                self._end_job(message["end"], environment=message["environment"])
            if self.job is not None and self.job.broken is not None:
                self.stop_job(*self.job.broken)

    def _on_event(self, event: dict[str, Any]) -> None:
        assert self.job is not None
        if self._watch is not None and event["event"] == "block":
            seen = self._watch.count(event["t_ns"], event["t_ns"] + event["wall_ns"])
            if seen is not None:
                event["throttle"] = (event["throttle"] or 0) + seen
        elif self._watch is not None and event["event"] == "job_started":
            self._watch.avoid(event["options"]["effective"]["cores"])
        self.job.event(event)

    def _on_ready(self, runtime: str, description: dict[str, Any]) -> None:
        """A worker has imported its runtime, or could not."""
        self.crew.known[runtime] = description
        if runtime == runtimes.NAMES[0]:
            for request_id in self.probes:
                self.out.send(protocol.encode({**self._requests.probe(), "re": request_id}))
            self.probes = []
        if self.job is not None and self.job.runtime == runtime:
            if "error" in description:
                error = description["error"]
                self._end_job("crashed", error["code"], error["message"])
            else:
                self._go_on()

    def _on_worker_end(self, worker: process.Worker) -> None:
        """A worker ended by itself: the network it worked on is to blame, the others go on."""
        how = process.exit_text(self.crew.drop(worker.runtime))
        if worker.ready is None:
            message = "importing the runtime %s" % how
            error = {"code": "runtime_crashed", "message": message}
            self._on_ready(worker.runtime, {"error": error})
            return
        job = self.job
        if job is None or job.runtime != worker.runtime:
            return
        if job.at is None:
            self._end_job("crashed", "runtime_crashed", "the runtime " + how)
            return
        job.fail(job.at, "runtime_crashed", "the runtime %s while working on it" % how)
        if job.open_items and job.broken is None:
            self._go_on()
        else:
            self._end_job("crashed")

    def stop_job(self, code: str, message: str) -> None:
        """Kill the worker of a running job, confirm, and end the job."""
        if self.job is not None:
            self.crew.drop(self.job.runtime)
            self._end_job("deadline" if code == "deadline" else "cancelled", code, message)

    def _end_job(
        self,
        outcome: str,
        code: str | None = None,
        message: str = "",
        environment: dict[str, Any] | None = None,
    ) -> None:
        """Write what is left to say of the job."""
        from device_agents.agent import board

        job, self.job = self.job, None
        seen, self._watch = self._watch, None
        assert job is not None
        if outcome == "deadline" and code is None:
            code, message = "deadline", "the job's deadline passed"
        if environment is None:
            environment = board.environment(self.root, self.work)
        throttle = None if seen is None else seen.finish()
        job.end(outcome, code, message, environment, throttle)
        self._publish()
