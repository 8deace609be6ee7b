"""What each request means; answers are JSON objects, refusals are RequestError.

What only some requests need is imported by them: a zipapp is compiled at every start, and the first
answer should come soon on a slow board too.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import traceback
from typing import TYPE_CHECKING, Any

from device_agents import __version__, runtimes
from device_agents.agent import facts, protocol
from device_agents.agent.lease import boot_id
from device_agents.agent.protocol import RequestError, field, job_name

if TYPE_CHECKING:
    from device_agents.agent.supervisor import Supervisor


class Requests:
    """Answers for a `Supervisor`."""

    def __init__(self, agent: Supervisor) -> None:
        self._agent = agent

    def answer(self, line: bytes) -> dict[str, Any] | None:
        """Return the reply to one line; None when it comes later."""
        request_id = None
        try:
            message = protocol.parse(line)
            request_id = message.get("id")
            handler = getattr(self, "_do_" + message["type"], self._unknown)
            reply = handler(message)
        except RequestError as exc:
            reply = exc.reply
        except OSError as exc:
            code = "no_space" if protocol.is_full(exc) else "work_dir"
            reply = RequestError(code, "%s: %s" % (exc.filename, exc.strerror)).reply
        except Exception as exc:
            traceback.print_exc()
            reply = RequestError("internal", "%s: %s" % (type(exc).__name__, exc)).reply
        return None if reply is None else {**reply, "re": request_id}

    def probe(self) -> dict[str, Any]:
        """What the board is and has."""
        from device_agents import power
        from device_agents.agent import board

        agent = self._agent
        child = (agent.crew.pids or [None])[0]
        return {
            "type": "probe",
            "device": board.describe(agent.root, child),
            "environment": board.environment(agent.root, agent.work),
            "runtimes": agent.crew.describe(),
            "power": power.describe(agent.root),
            "quiet": {
                "nice": agent.crew.nice_allowed,
                "affinity": hasattr(os, "sched_setaffinity"),
                "governor": facts.governor_writable(agent.root),
                "actions": [action.name for action in board.quiet_actions(agent.root)],
            },
        }

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
            "boot_id": boot_id(self._agent.root),
            "lease_dir": self._agent.lease_dir,
        }

    @staticmethod
    def _do_ping(_message: dict[str, Any]) -> dict[str, Any]:
        return {"type": "pong"}

    def _do_probe(self, message: dict[str, Any]) -> dict[str, Any] | None:
        agent = self._agent
        first = runtimes.NAMES[0]
        known = agent.crew.known.get(first)
        if known is None or ("error" in known and agent.job is None):
            agent.probes.append(message.get("id"))
            worker = agent.crew.get(first)
            if worker is not None and worker.ready is not None:
                agent.crew.drop(first)  # perhaps the runtime has been installed meanwhile
            agent.need_worker(first)
            return None
        return self.probe()

    def _do_lease(self, message: dict[str, Any]) -> dict[str, Any]:
        agent = self._agent
        owner, ttl_s = field(message, "owner", str), field(message, "ttl_s", (int, float))
        session = message.get("session")
        if not (session is None or isinstance(session, str)) or len(owner) > 200:
            raise RequestError("bad_request", "lease: 'session' or 'owner' is no short string")
        token = agent.lease.take(owner, min(max(1.0, float(ttl_s)), 3600.0), session)
        agent.settings.recover()
        return {"type": "lease", "lease": token}

    def _do_release(self, message: dict[str, Any]) -> dict[str, Any]:
        self._check_lease(message)
        job = self._agent.job
        if job is not None:
            raise RequestError("busy", "job %s is running; cancel it first" % job.name)
        self._agent.settings.restore()
        self._agent.lease.release()
        return {"type": "released"}

    def _do_measure(self, message: dict[str, Any]) -> dict[str, Any]:
        from device_agents.agent import preflight
        from device_agents.agent.job import Job

        agent = self._agent
        self._check_lease(message)
        if agent.job is not None:
            raise RequestError("busy", "job %s is running" % agent.job.name, retryable=True)
        job = Job(message, agent.out.send)
        preflight.check(job.request["options"], agent.root, agent.work)
        try:
            job.open_journal(agent.work)
        except FileExistsError:
            text = "job %s has a journal already; fetch or forget it" % job.name
            raise RequestError("job_exists", text) from None
        agent.job = job
        return {"type": "accepted", "job": job.name}

    def _do_fetch(self, message: dict[str, Any]) -> dict[str, Any]:
        from device_agents.agent import journal

        agent = self._agent
        name, since = job_name(message), field(message, "since", int)
        path = journal.path_of(agent.work, name)
        closing = None
        try:
            if not self._runs(name) and not journal.read(path)[1].done:
                closing = self._close_orphan(path, name)
            lines, tally, _ = journal.read(path)
        except FileNotFoundError:
            return {"type": "fetched", "job": name, "state": "unknown", "last_seq": 0}
        if closing is not None and not tally.done:  # the disk is full
            lines.append((tally.last_seq + 1, closing))
            tally.done, tally.last_seq = True, tally.last_seq + 1
        for seq, line in lines:
            if seq > since:
                agent.out.send(line)
        state = "done" if tally.done else "running"
        return {"type": "fetched", "job": name, "state": state, "last_seq": tally.last_seq}

    def _do_cancel(self, message: dict[str, Any]) -> dict[str, Any]:
        name = job_name(message)
        runs_here = self._runs(name)
        if runs_here:
            self._agent.stop_job("cancelled", "the job was cancelled")
        return {"type": "cancelled", "job": name, "was_running": runs_here}

    def _do_forget(self, message: dict[str, Any]) -> dict[str, Any]:
        from device_agents.agent import journal

        name = job_name(message)
        path = journal.path_of(self._agent.work, name)
        try:
            if self._runs(name) or journal.is_written(path):
                where = "" if self._runs(name) else " in another agent"
                text = "job %s is running%s; cancel it first" % (name, where)
                raise RequestError("busy", text, retryable=True)
            os.unlink(path)
        except FileNotFoundError:
            pass  # forgotten before
        return {"type": "forgotten", "job": name}

    def _do_clean(self, message: dict[str, Any]) -> dict[str, Any]:
        from device_agents.agent import tidy

        self._check_lease(message)
        job = self._agent.job
        if job is not None:
            raise RequestError("busy", "job %s is running" % job.name, retryable=True)
        keep = message.get("keep")
        if keep is not None:
            keep = {str(entry) for entry in field(message, "keep", list)}
        removed = tidy.clean(self._agent.work, keep, journals=message.get("journals") is True)
        return tidy.as_reply(removed)

    def _do_bye(self, _message: dict[str, Any]) -> dict[str, Any]:
        self._agent.stop_job("cancelled", "the host said goodbye")
        self._agent.exit_status = 0
        return {"type": "bye"}

    def _runs(self, name: str) -> bool:
        job = self._agent.job
        return job is not None and job.name == name

    def _check_lease(self, message: dict[str, Any]) -> None:
        token = self._agent.lease.token
        if token is None or message.get("lease") != token:
            raise RequestError("lease_lost", "%s needs this agent's lease" % message["type"])

    def _close_orphan(self, path: str, name: str) -> bytes | None:
        """Write the last event for an agent that died; None while its writer lives."""
        from device_agents.agent import board, journal

        event = {
            "wall_ns": None,
            "environment": board.environment(self._agent.root, self._agent.work),
            "outcome": "crashed",
        }
        try:
            return journal.close_crashed(path, name, event)
        except BlockingIOError:
            return None


def _own_sha() -> str:
    """First 12 digits of the zipapp's SHA-256, as in its name; "checkout" when run from one."""
    try:
        with open(sys.argv[0], "rb") as stream:
            data = stream.read()
    except OSError:
        return "checkout"
    return hashlib.sha256(data).hexdigest()[:12] if data[:2] == b"PK" else "checkout"
