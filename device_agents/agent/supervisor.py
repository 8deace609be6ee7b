"""The process the host talks to: requests, the lease, deadlines; never measures itself.

One thread decides everything; others only feed its inbox (requests, the worker, the lease's
heartbeat, signals) or write what it sends. So a request is answered at once while a job runs, and
what reaches the host is in the journal's order.
"""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any

from device_agents import __version__, power
from device_agents.agent import facts, journal, process, protocol
from device_agents.agent.job import Job
from device_agents.agent.lease import LeaseKeeper, boot_id
from device_agents.agent.protocol import RequestError, field, job_name
from device_agents.x86 import board

_START_LIMIT_S = 80.0
"""For the worker to import the runtime (15 s under emulation)."""
_FLUSH_S = 5.0
_EXIT_INTERNAL = 70


class Supervisor:
    """Serves one host over stdin and stdout."""

    def __init__(self, work: str, root: str) -> None:
        """Work in the folder `work`; `root` is where /sys and /proc are found."""
        self._work = work
        self._root = root
        self._inbox = queue.SimpleQueue()  # type: queue.SimpleQueue[tuple[str, Any, Any]]
        # Stray prints of any library go to standard error.
        self._out = protocol.Output(os.dup(1))
        os.dup2(2, 1)
        self._lease = LeaseKeeper(work, lambda: self._inbox.put(("lease_lost", None, None)))
        self._worker = None  # type: process.Worker | None
        self._worker_limit_s = 0.0
        self._runtime = None  # type: dict[str, Any] | None
        self._nice_allowed = False
        self._probes = []  # type: list[Any]
        self._job = None  # type: Job | None
        self._host_gone = False
        self._exit_status = None  # type: int | None

    def serve(self) -> int:
        """Answer until the host says goodbye or is gone (its job is finished first); then exit."""
        try:
            self._serve()
        except BaseException:
            traceback.print_exc()
            self._exit_status = _EXIT_INTERNAL
        sys.stderr.flush()
        # Threads sit in reads that never return; an ordinary exit would wait for them.
        os._exit(self._exit_status or 0)

    def _serve(self) -> None:
        process.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _: self._inbox.put(("signal", n, None)))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a dropped link is no reason to stop
        threading.Thread(target=self._listen, name="input", daemon=True).start()
        while self._exit_status is None:
            try:
                kind, payload, sender = self._inbox.get(timeout=self._patience_s())
            except queue.Empty:
                self._enforce_deadlines()
                continue
            if kind == "line":
                self._on_line(payload)
            elif kind == "worker":
                self._on_worker(sender, payload)
            elif kind == "eof":
                self._host_gone = True
            elif kind == "signal":
                self._stop_job("cancelled", "the agent was told to end")
                self._exit_status = 128 + payload
            elif kind == "lease_lost":
                self._stop_job("lease_lost", "another agent took the board")
            self._enforce_deadlines()
            if self._host_gone and self._job is None and self._exit_status is None:
                self._exit_status = 0
        self._drop_worker()
        self._lease.release()
        self._out.close(_FLUSH_S)

    def _listen(self) -> None:
        def on_line(line: bytes | None) -> None:
            self._inbox.put(("eof" if line is None else "line", line, None))

        protocol.read_lines(0, on_line)

    def _patience_s(self) -> float | None:
        """How long nothing may happen before a deadline has to be looked at."""
        limits = [] if self._job is None else [self._job.kill_at_s]
        if self._worker is not None and self._worker.ready is None:
            limits.append(self._worker_limit_s)
        return max(0.0, min(limits) - time.monotonic()) if limits else None

    def _enforce_deadlines(self) -> None:
        now_s = time.monotonic()
        if self._job is not None and now_s >= self._job.kill_at_s:
            self._stop_job("deadline", "the job's deadline passed")
        worker = self._worker
        if worker is not None and worker.ready is None and now_s >= self._worker_limit_s:
            self._drop_worker()
            message = "importing the runtime took more than %.0f s" % _START_LIMIT_S
            self._on_ready({"error": {"code": "runtime_hung", "message": message}})

    # --- requests -----------------------------------------------------------------------------

    def _on_line(self, line: bytes) -> None:
        request_id = None
        try:
            message = protocol.parse(line)
            request_id = message.get("id")
            handler = getattr(self, "_do_" + message["type"], self._unknown)
            reply = handler(message)
        except RequestError as exc:
            reply = exc.reply
        except OSError as exc:
            code = "no_space" if journal.is_full(exc) else "work_dir"
            reply = RequestError(code, "%s: %s" % (exc.filename, exc.strerror)).reply
        except Exception as exc:
            traceback.print_exc()
            reply = RequestError("internal", "%s: %s" % (type(exc).__name__, exc)).reply
        if reply is not None:
            self._out.send(protocol.encode({**reply, "re": request_id}))
            if reply["type"] == "accepted":
                self._begin()

    @staticmethod
    def _unknown(message: dict[str, Any]) -> None:
        raise RequestError("bad_request", "unknown type %r" % message["type"][:40])

    def _do_hello(self, message: dict[str, Any]) -> dict[str, Any]:
        spoken = field(message, "protocol", list)
        if len(spoken) != 2 or not spoken[0] <= protocol.VERSION <= spoken[1]:
            raise RequestError(
                "protocol_version",
                "this agent speaks protocol %d, the host %s" % (protocol.VERSION, spoken),
                protocol=protocol.VERSION,
            )
        return {
            "type": "hello",
            "protocol": protocol.VERSION,
            "agent_version": __version__,
            "agent_sha": _own_sha(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "boot_id": boot_id(self._root),
        }

    def _do_probe(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if self._runtime is None or ("error" in self._runtime and self._job is None):
            self._probes.append(message.get("id"))
            self._need_worker()
            return None
        return self._probe()

    def _probe(self) -> dict[str, Any]:
        child = None if self._worker is None else self._worker.pid
        return {
            "type": "probe",
            "device": board.describe(self._root, child),
            "environment": facts.environment(self._root, self._work),
            "runtimes": {"ort": self._runtime},
            "power": power.describe(self._root),
            "quiet": {
                "nice": self._nice_allowed,
                "affinity": hasattr(os, "sched_setaffinity"),
                "governor": facts.governor_writable(self._root),
            },
        }

    def _do_lease(self, message: dict[str, Any]) -> dict[str, Any]:
        owner, ttl_s = field(message, "owner", str), field(message, "ttl_s", (int, float))
        return {"type": "lease", "lease": self._lease.take(owner, max(1.0, float(ttl_s)))}

    def _do_release(self, message: dict[str, Any]) -> dict[str, Any]:
        self._check_lease(message)
        if self._job is not None:
            raise RequestError("busy", "job %s is running; cancel it first" % self._job.name)
        self._lease.release()
        return {"type": "released"}

    def _do_measure(self, message: dict[str, Any]) -> dict[str, Any]:
        self._check_lease(message)
        if self._job is not None:
            raise RequestError("busy", "job %s is running" % self._job.name, retryable=True)
        job = Job(message, self._out.send)
        threads = job.request["options"]["threads"]
        quota, cores = facts.cgroup_quota(self._root), len(facts.allowed_cores())
        if threads > cores or (quota is not None and threads > quota + 1e-6):
            have = "%d cores" % cores if quota is None else "%.2f cores' quota" % quota
            raise RequestError("not_enough_cpu", "%d threads, but only %s" % (threads, have))
        try:
            job.open_journal(self._work)
        except FileExistsError:
            message = "job %s has a journal already; fetch or forget it" % job.name
            raise RequestError("job_exists", message) from None
        self._job = job
        return {"type": "accepted", "job": job.name}

    def _do_fetch(self, message: dict[str, Any]) -> dict[str, Any]:
        name, since = job_name(message), field(message, "since", int)
        path = journal.path_of(self._work, name)
        runs_here = self._job is not None and self._job.name == name
        try:
            lines, tally, _ = journal.read(path)
            if not tally.done and not runs_here and self._lease.is_free():
                self._close_orphan(path, name)
                lines, tally, _ = journal.read(path)
        except FileNotFoundError:
            return {"type": "fetched", "job": name, "state": "unknown", "last_seq": 0}
        for seq, line in lines:
            if seq > since:
                self._out.send(line)
        state = "done" if tally.done else "running"
        return {"type": "fetched", "job": name, "state": state, "last_seq": tally.last_seq}

    def _do_cancel(self, message: dict[str, Any]) -> dict[str, Any]:
        name = job_name(message)
        runs_here = self._job is not None and self._job.name == name
        if runs_here:
            self._stop_job("cancelled", "the job was cancelled")
        return {"type": "cancelled", "job": name, "was_running": runs_here}

    def _do_forget(self, message: dict[str, Any]) -> dict[str, Any]:
        name = job_name(message)
        if self._job is not None and self._job.name == name:
            raise RequestError("busy", "job %s is running; cancel it first" % name, retryable=True)
        path = journal.path_of(self._work, name)
        try:
            if not journal.read(path)[1].done and not self._lease.is_free():
                raise RequestError("busy", "job %s runs in another agent" % name, retryable=True)
            os.unlink(path)
        except FileNotFoundError:
            pass  # forgotten before
        return {"type": "forgotten", "job": name}

    def _do_bye(self, _message: dict[str, Any]) -> dict[str, Any]:
        self._stop_job("cancelled", "the host said goodbye")
        self._exit_status = 0
        return {"type": "bye"}

    def _check_lease(self, message: dict[str, Any]) -> None:
        if self._lease.token is None or message.get("lease") != self._lease.token:
            raise RequestError("lease_lost", "%s needs this agent's lease" % message["type"])

    def _close_orphan(self, path: str, name: str) -> None:
        """Write the last event for an agent that died; under the lease, so no writer is alive."""
        had_lease = self._lease.token is not None
        if not had_lease:
            self._lease.take("hwnas-agent", 60.0)
        try:
            journal.close_crashed(
                path,
                name,
                {
                    "wall_ns": None,
                    "environment": facts.environment(self._root, self._work),
                    "outcome": "crashed",
                },
            )
        finally:
            if not had_lease:
                self._lease.release()

    # --- the worker and the job ---------------------------------------------------------------

    def _need_worker(self) -> None:
        """Start a worker unless there is one."""
        if self._worker is None:
            command = [sys.executable, sys.argv[0], "--work", self._work]
            command += ["--sysroot", self._root, "--worker", str(os.getpid())]
            self._worker_limit_s = time.monotonic() + _START_LIMIT_S
            try:
                self._worker = process.Worker(
                    command, lambda worker, message: self._inbox.put(("worker", message, worker))
                )
            except OSError as exc:
                message = "cannot start %s: %s" % (sys.executable, exc.strerror)
                self._on_ready({"error": {"code": "runtime_missing", "message": message}})

    def _drop_worker(self) -> int:
        """Kill the worker and confirm; returns its exit status."""
        worker, self._worker = self._worker, None
        return 0 if worker is None else worker.kill()

    def _begin(self) -> None:
        """Have the worker run (the rest of) the job; starts one when needed."""
        if self._worker is not None and self._worker.ready is not None:
            if "error" not in self._worker.ready:
                assert self._job is not None
                self._worker.send(self._job.for_worker())
                return
            self._drop_worker()  # perhaps the runtime has been installed meanwhile
        self._need_worker()

    def _on_worker(self, worker: process.Worker, message: dict[str, Any] | None) -> None:
        if worker is not self._worker:
            return  # last words of one that was killed
        if message is None:
            self._on_worker_end()
        elif "ready" in message:
            worker.ready = message["ready"]
            self._nice_allowed = message["nice"]
            self._on_ready(message["ready"])
        elif self._job is not None:
            if "at" in message:
                self._job.at = message["at"]
            elif "event" in message:
                self._job.event(message["event"])
            elif "end" in message:
                self._end_job(message["end"], environment=message["environment"])
            if self._job is not None and self._job.broken is not None:
                self._stop_job(*self._job.broken)

    def _on_ready(self, description: dict[str, Any]) -> None:
        """The worker has imported the runtime, or could not."""
        self._runtime = description
        for request_id in self._probes:
            self._out.send(protocol.encode({**self._probe(), "re": request_id}))
        self._probes = []
        if self._job is not None:
            if "error" in description:
                error = description["error"]
                self._end_job("crashed", error["code"], error["message"])
            else:
                self._begin()

    def _on_worker_end(self) -> None:
        """The worker ended by itself: the network it worked on is to blame, the others go on."""
        was_ready = self._worker is not None and self._worker.ready is not None
        how = process.exit_text(self._drop_worker())
        if not was_ready:
            message = "importing the runtime %s" % how
            self._on_ready({"error": {"code": "runtime_crashed", "message": message}})
            return
        job = self._job
        if job is None:
            return
        if job.at is None:
            self._end_job("crashed", "runtime_crashed", "the runtime " + how)
            return
        job.fail(job.at, "runtime_crashed", "the runtime %s while working on it" % how)
        if job.open_items and job.broken is None:
            self._begin()
        else:
            self._end_job("crashed")

    def _stop_job(self, code: str, message: str) -> None:
        """Kill the worker of a running job, confirm, and end the job."""
        if self._job is not None:
            self._drop_worker()
            self._end_job("deadline" if code == "deadline" else "cancelled", code, message)

    def _end_job(
        self,
        outcome: str,
        code: str | None = None,
        message: str = "",
        environment: dict[str, Any] | None = None,
    ) -> None:
        """Write what is left to say of the job."""
        job, self._job = self._job, None
        assert job is not None
        if outcome == "deadline" and code is None:
            code, message = "deadline", "the job's deadline passed"
        if environment is None:
            environment = facts.environment(self._root, self._work)
        job.end(outcome, code, message, environment)


def _own_sha() -> str:
    """First 12 digits of the zipapp's SHA-256, as in its name; "checkout" when run from one."""
    try:
        with open(sys.argv[0], "rb") as stream:
            data = stream.read()
    except OSError:
        return "checkout"
    return hashlib.sha256(data).hexdigest()[:12] if data[:2] == b"PK" else "checkout"
