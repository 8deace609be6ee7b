"""The lease: one agent at a time measures on a board, whatever user or data folder it serves.

The record (see boardfile.py) says who holds the board. The holder renews its heartbeat, the board's
*monotonic* clock, several times per time-to-live: boards without a battery jump in calendar time.
A lease is stale when its process is gone, the board was rebooted, or the heartbeat is older than
its time-to-live; a holder that still exists then is killed before the board is taken. So is an
idle agent whose host is gone, for the same owner. Whoever takes a board from another waits until
that one's children are gone too: the worker, and the guardian that restores the governor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Callable

from device_agents.agent import facts, protocol
from device_agents.agent.boardfile import BoardFile

_KILL_WAIT_S = 5.0
_TOL = 300
"""Ticks by which a process's start may differ: emulators tell it to itself and to others."""
_FILE_RETRIES = 3


def boot_id(root: str) -> str:
    """Name of the present boot; empty where unknown."""
    return facts.read(root, "proc/sys/kernel/random/boot_id") or ""


def process_mark(pid: int) -> list[int]:
    """[pid, start] of a process, by which `is_alive` knows it again; start 0 when unreadable."""
    fields = _stat_fields(pid)
    return [pid, 0 if fields is None else int(fields[19])]


def is_alive(mark: list[int]) -> bool:
    """Whether the process of `process_mark` still runs; one nobody waited for yet does not."""
    pid, started = mark
    if not _exists(pid):
        return False
    fields = _stat_fields(pid)
    if fields is None:
        return _exists(pid)  # /proc may hide other users' processes (Android does)
    return fields[0] not in "ZX" and abs(int(fields[19]) - (started or int(fields[19]))) <= _TOL


def is_agent(pid: int) -> bool:
    """Whether a process is an agent: everybody may write the lease, and so name our victim."""
    command = facts.read("/", "proc/%d/cmdline" % pid) or ""
    return "hwnas-agent" in command or "device_agents" in command


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of a process's stat from its state on; None when unreadable."""
    # The thread's file, not the process's: emulators make up the latter.
    stat = facts.read("/", "proc/%d/task/%d/stat" % (pid, pid))
    return None if stat is None else stat.rpartition(")")[2].split()


def _pid_space() -> str:
    """Process ids mean something inside one name space (a container) only."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class LeaseKeeper:
    """This agent's side of the lease.

    Attributes:
        token: of the lease we hold, None when we hold none.
    """

    def __init__(self, folder: str, work: str, on_lost: Callable[[], None]) -> None:
        """Keep the lease in `folder`; `on_lost` is called in a thread when somebody took it."""
        self._file = BoardFile(folder)
        self._work = facts.sha16(os.path.realpath(work))
        self._runner = os.path.join(work, "lease.d", "holder")
        self._on_lost = on_lost
        self._stop = None  # type: threading.Event | None
        self._boot = boot_id("/")
        self._space = _pid_space()
        self._state = {"job": None, "host_s": None, "silent_after_s": None, "session": None}
        self._children = []  # type: list[list[int]]
        self.token = None  # type: str | None

    def take(self, owner: str, ttl_s: float, session: str | None = None) -> str:
        """Return the lease's token. Raises: RequestError "board_busy" when another holds it.

        Args:
            owner: who wants it.
            ttl_s: seconds without a heartbeat after which others may take it.
            session: name of the host's session. An idle agent of the same owner and session is
                one that this host lost the link to: it is replaced at once.
        """
        if self.token is not None:
            return self.token
        self._state["session"] = session
        with self._file.locked() as descriptor:
            record = self._file.read(descriptor)
            if record is not None:
                self._evict(record, owner, session)
            token = os.urandom(8).hex()
            self._file.write(descriptor, self._record_of(token, owner, ttl_s))
            try:
                self._refuse_runner()
            except protocol.RequestError:
                self._file.write(descriptor, None)
                raise
        self.token = token
        self._stop = threading.Event()
        arguments = (token, owner, ttl_s, self._stop)
        threading.Thread(target=self._beat, args=arguments, name="lease", daemon=True).start()
        return token

    def release(self) -> None:
        """Give the lease back; nothing happens when it is not ours."""
        if self.token is None:
            return
        if self._stop is not None:
            self._stop.set()
        with self._file.locked() as descriptor:
            record = self._file.read(descriptor)
            if record is not None and record.get("token") == self.token:
                self._file.write(descriptor, None)
        self.token = None

    def note(self, **state: Any) -> None:
        """Remember what others may want to know; it goes with the next heartbeat.

        Args:
            state: `job` (the one that runs or None), `host_s` (its last sign of life, monotonic;
                None: it is gone), `silent_after_s` (how long it may be silent; None: for ever).
        """
        self._state.update(state)

    def publish(self, children: list[int] | None = None) -> None:
        """Write what is noted (and the process ids of our `children`) into the record now."""
        if children is not None:
            self._children = [process_mark(pid) for pid in children]
        if self.token is not None:
            with suppress(protocol.RequestError), self._file.locked() as descriptor:
                record = self._file.read(descriptor)
                if record is not None and record.get("token") == self.token:
                    self._file.write(descriptor, {**record, **self._changing()})

    def _record_of(self, token: str, owner: str, ttl_s: float) -> dict[str, Any]:
        pid, started = process_mark(os.getpid())
        return {
            "token": token,
            "owner": owner,
            "pid": pid,
            "started_ticks": started,
            "boot_id": self._boot,
            "pid_space": self._space,
            "work": self._work,
            "ttl_s": ttl_s,
            **self._changing(),
        }

    def _changing(self) -> dict[str, Any]:
        return {**self._state, "beat_s": time.monotonic(), "children": self._children}

    def _beat(self, token: str, owner: str, ttl_s: float, stop: threading.Event) -> None:
        failures = 0
        while not stop.wait(min(ttl_s / 4.0, 5.0)):
            try:
                with self._file.locked() as descriptor:
                    record = self._file.read(descriptor)
                    if stop.is_set():
                        return
                    # A record that is gone was tidied away by the system (some log-ins end with
                    # that), not taken by an agent: those leave theirs.
                    if record is None or record.get("token") == token:
                        self._file.write(descriptor, self._record_of(token, owner, ttl_s))
                        failures = 0
                        continue
            except protocol.RequestError as exc:
                failures += 1
                sys.stderr.write("hwnas-agent: %s\n" % exc)
                if failures < _FILE_RETRIES:
                    continue
            self.token = None
            self._on_lost()
            return

    def _evict(self, record: dict[str, Any], owner: str, session: str | None) -> None:
        """Return when the holder in `record` is gone, by itself or with our help."""
        if self._alive(record):
            age_s = max(0.0, time.monotonic() - record["beat_s"])
            stale = age_s > record["ttl_s"]
            if not (stale or _is_abandoned(record, owner, session)) or not self._end(record):
                raise _busy(record, age_s)
        self._await_children(record)

    def _refuse_runner(self) -> None:
        """Refuse while a session without Python runs a job in our work folder.

        Its script has a lease of its own, and looks at ours after taking that, as we do here.
        Raises: RequestError "board_busy".
        """
        words = (facts.read("", self._runner) or "").split()
        try:
            pid, started, boot, end_s, owner, job = [*words[:5], " ".join(words[5:])]
            mark, uptime = [int(pid), int(started)], facts.read("/", "proc/uptime") or "0"
            is_over = float(uptime.split()[0]) >= float(end_s)
        except ValueError:
            return
        if boot == (self._boot or "unknown") and not is_over and mark[0] > 0 and is_alive(mark):
            raise _busy({"owner": owner, "pid": mark[0], "job": job}, 0.0)

    def _end(self, record: dict[str, Any]) -> bool:
        """Kill the holder; returns whether it is gone."""
        if record.get("pid_space") != self._space:
            return True  # out of our sight, and without a heartbeat
        if is_agent(record["pid"]):
            with suppress(OSError):  # not ours to kill: it stays the holder
                os.kill(record["pid"], signal.SIGKILL)  # its worker dies with it
        return self._wait(lambda: not self._alive(record))

    def _await_children(self, record: dict[str, Any]) -> None:
        """Wait for the worker (the kernel kills it) and the guardian (it restores settings)."""
        is_near = record.get("boot_id") == self._boot and record.get("pid_space") == self._space
        marks = record["children"] if is_near else []
        if not self._wait(lambda: not any(is_alive(mark) for mark in marks)):
            raise _busy(record, 0.0)

    @staticmethod
    def _wait(condition: Callable[[], bool]) -> bool:
        end_s = time.monotonic() + _KILL_WAIT_S
        while not condition():
            if time.monotonic() > end_s:
                return False
            time.sleep(0.01)
        return True

    def _alive(self, record: dict[str, Any]) -> bool:
        if record.get("boot_id") != self._boot:
            return False
        if record.get("pid_space") != self._space:
            return time.monotonic() - record["beat_s"] <= record["ttl_s"]
        return is_alive([record["pid"], record["started_ticks"]])


def _is_abandoned(record: dict[str, Any], owner: str, session: str | None) -> bool:
    """Whether the holder waits, without a job, for a host of `owner` that will not come back."""
    if record.get("owner") != owner or record.get("job") is not None:
        return False
    if session is not None and record.get("session") == session:
        return True  # that host is us
    heard_s, limit_s = record.get("host_s"), record.get("silent_after_s")
    if heard_s is None:
        return True
    return limit_s is not None and time.monotonic() - heard_s > limit_s


def _busy(record: dict[str, Any], age_s: float) -> protocol.RequestError:
    holder = {
        "owner": record.get("owner"),
        "pid": record["pid"],
        "age_s": round(age_s, 3),
        "job": record.get("job"),
    }
    message = "the board is in use by %s (process %s)" % (holder["owner"], holder["pid"])
    return protocol.RequestError("board_busy", message, retryable=True, holder=holder)
