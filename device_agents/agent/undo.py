"""Settings of the board that are changed for measuring, and restored whatever happens to us.

What was there before is written to ``undo.json`` in the work folder before anything is changed.
It is put back at release and at every ordinary end; after ``kill -9`` of the agent by its guardian,
a small process that waits for the end of a pipe; and should that have died too (or the power have
failed, for settings that survive it), by the next agent that gets the lease. That may be one with
another work folder (another user, ADB instead of SSH), which sees only what lies in the lease's
folder: so governors are noted there as well.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import Any, Iterator

from device_agents.agent import board, facts
from device_agents.agent.board import Action
from device_agents.agent.boardfile import flock_within
from device_agents.agent.lease import boot_id, process_mark

_FILE = "undo.json"
_CPU = "sys/devices/system/cpu"
_LOCK_WAIT_S = 10.0
_SHARED = "hwnas-undo-"
_SHARED_MAX_BYTES = 65536
_GOVERNOR = re.compile("[a-z_]{1,32}")


def governors(root: str, cores: list[int]) -> list[Action]:
    """One action for each frequency policy of `cores`."""
    actions = {}
    for core in cores:
        path = os.path.join(root, _CPU, "cpu%d/cpufreq/scaling_governor" % core)
        # All cores of a policy lead to one folder.
        name = "governor:" + os.path.basename(os.path.realpath(os.path.dirname(path)))
        if name == "governor:cpufreq":  # an old kernel without policy folders
            name = "governor:cpu%d" % core
        if name not in actions and os.path.exists(path):
            actions[name] = Action(name, *_file(path), quiet="performance")
    return list(actions.values())


def _file(path: str) -> tuple[Any, Any]:
    """`read` and `write` of an action that is one file; unreadable when it cannot be written."""

    def read() -> str | None:
        return facts.read("", path) if os.access(path, os.W_OK) else None

    def write(text: str) -> None:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)

    return read, write


def _has_actions(root: str) -> bool:
    return hasattr(board.detect(root), "quiet_actions")


def everything(root: str) -> list[Action]:
    """Every action this board knows."""
    cores = range(os.cpu_count() or 1)
    with suppress(AttributeError):
        cores = sorted({*cores, *os.sched_getaffinity(0)})
    return governors(root, list(cores)) + board.quiet_actions(root)


class Settings:
    """This agent's changes. Use `apply` and `recover` under the lease only."""

    def __init__(self, work: str, root: str, lease_dir: str | None = None) -> None:
        self._path = os.path.join(work, _FILE)
        self._lease_dir = lease_dir or work
        name = hashlib.sha256(os.path.abspath(work).encode()).hexdigest()[:12]
        self._shared = os.path.join(self._lease_dir, _SHARED + name + ".json")
        self._root = root
        self._mark = process_mark(os.getpid())
        self._changed = False
        self._report = {}  # type: dict[str, Any]
        self.guardian_pid = None  # type: int | None
        self._pipe = None  # type: int | None

    def guard(self) -> None:
        """Start the guardian, where there may be something to restore.

        Call it before any thread is started: a forked process has only the one that forked.
        """
        cores = facts.allowed_cores()
        can_set = any(action.read() is not None for action in governors(self._root, cores))
        # Only root may change what families know beyond that; looking for them takes time.
        if not can_set and (os.geteuid() or not _has_actions(self._root)):
            return
        read_end, self._pipe = os.pipe()
        self.guardian_pid = os.fork()
        if self.guardian_pid == 0:
            os.close(self._pipe)
            _watch(read_end, self)
        os.close(read_end)

    def apply(self, governor: str | None, cores: list[int]) -> dict[str, Any]:
        """Make the board steady; returns {"governor": facts, "quiet": [facts]} for the journal.

        Args:
            governor: "performance", or None to leave the board as it is.
            cores: those that may be used.
        """
        if governor is None:
            self.restore()
            before = facts.governor(self._root, cores)
            return {"governor": {"before": before, "set": None, "reason": "not asked"}, "quiet": []}
        if self._changed:  # by the job before; each journal says what was there before both
            return self._report
        own, extra = governors(self._root, cores), board.quiet_actions(self._root)
        before = facts.governor(self._root, cores)
        present = [(action, action.read()) for action in own + extra]
        changes = [(a, was) for a, was in present if was is not None and was != a.quiet]
        entries = [{"name": a.name, "error": "not allowed"} for a, was in present if was is None]
        if changes and self._note([{"name": a.name, "before": was} for a, was in changes]):
            entries += [_do(action, was) for action, was in changes]
        elif changes:
            entries += [
                {"name": a.name, "error": "cannot be noted for undoing"} for a, _ in changes
            ]
        names = [action.name for action in own]
        errors = [e["error"] for e in entries if e["name"] in names and e.get("error")]
        reason = errors[0] if errors else None if own else "no cpufreq"
        self._report = {
            "governor": {
                "before": before,
                "set": None if reason else governor,
                "restored_by": "agent",
                "reason": reason,
            },
            "quiet": [entry for entry in entries if entry["name"] not in names],
        }
        return self._report

    def _note(self, changes: list[dict[str, Any]]) -> bool:
        """Write down what is about to be changed; without that nothing is."""
        try:
            with self._locked():
                self._store(changes)
        except OSError:
            traceback.print_exc()
            return False
        self._changed = True
        return True

    def restore(self) -> None:
        """Put everything back; what cannot be put back stays noted for the next agent."""
        if self._changed:
            self._changed = False
            self._undo(self._mark)

    def recover(self) -> None:
        """Put back what an agent that died has left; under the lease, so it is not measuring."""
        if self._changed:
            return
        if os.path.exists(self._path):
            try:
                self._undo(None)
            except OSError:
                traceback.print_exc()
        for path in glob.glob(os.path.join(self._lease_dir, _SHARED + "*.json")):
            if path != self._shared:
                try:
                    self._undo_for_others(path)
                except Exception:  # whatever somebody else's note does, it must cost no lease
                    traceback.print_exc()

    def _undo_for_others(self, path: str) -> None:
        """Restore governors that an agent with another work folder has left.

        Anybody may write to that folder: only a governor that is still at our value is changed, and
        only to a word. The note may belong to another user; then it stays, and does nothing more.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            noted = _sound(stream.read(_SHARED_MAX_BYTES))
        if noted is not None and noted.get("boot_id") == boot_id("/"):
            actions = {a.name: a for a in governors(self._root, list(range(os.cpu_count() or 1)))}
            for entry in noted["changes"]:
                action, before = actions.get(entry["name"]), entry["before"]
                is_word = isinstance(before, str) and _GOVERNOR.fullmatch(before)
                if action is not None and is_word and action.read() == action.quiet:
                    action.write(before)
        with suppress(OSError):
            os.unlink(path)

    def close(self) -> None:
        """Restore, and let the guardian go."""
        self.restore()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
            with suppress(ChildProcessError):
                os.waitpid(self.guardian_pid or -1, 0)

    def undo_for_agent(self) -> None:
        """The guardian's part: restore what the agent changed, if that still has to be done."""
        self._undo(self._mark)

    def _undo(self, mark: list[int] | None) -> None:
        with self._locked():
            noted = self._load()
            if noted is None or (mark is not None and noted.get("agent") != mark):
                return
            same_boot = noted.get("boot_id") == boot_id("/")
            actions = {action.name: action for action in everything(self._root)}
            failed = []
            for entry in reversed(noted["changes"]):
                action = actions.get(entry["name"])
                if action is None or (not same_boot and entry["name"].startswith("governor:")):
                    continue  # a governor does not survive a reboot
                try:
                    if action.read() != entry["before"]:
                        action.write(entry["before"])
                except Exception:
                    traceback.print_exc()
                    failed.insert(0, entry)
            if failed:
                self._store(failed)
            else:
                os.unlink(self._path)
                with suppress(OSError):
                    os.unlink(self._shared)

    def _store(self, changes: list[dict[str, str]]) -> None:
        noted = {"agent": self._mark, "boot_id": boot_id("/"), "changes": changes}
        scratch = self._path + ".tmp"
        with open(scratch, "w", encoding="utf-8") as stream:
            json.dump(noted, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, self._path)
        with suppress(OSError):
            self._share(noted)

    def _share(self, noted: dict[str, Any]) -> None:
        """Tell agents with other work folders; theirs may be no folder that we can read."""
        scratch = "%s.%d" % (self._shared, os.getpid())
        with suppress(FileNotFoundError):
            os.unlink(scratch)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(scratch, flags, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(noted, stream)
        os.replace(scratch, self._shared)

    def _load(self) -> dict[str, Any] | None:
        try:
            with open(self._path, "rb") as stream:
                return _sound(stream.read())
        except OSError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            flock_within(descriptor, _LOCK_WAIT_S)
            yield
        finally:
            os.close(descriptor)


def _sound(content: bytes) -> dict[str, Any] | None:
    """A note that says what it should; None for anything else."""
    try:
        noted = json.loads(content.decode("utf-8"))
    except ValueError:
        return None
    changes = noted.get("changes") if isinstance(noted, dict) else None
    is_sound = isinstance(changes, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and "before" in entry
        for entry in changes
    )
    return noted if is_sound else None


def _do(action: Action, before: str) -> dict[str, Any]:
    """Change one setting; an error is a fact, not an end."""
    entry = {"name": action.name, "before": before, "set": action.quiet}
    try:
        action.write(action.quiet)
    except Exception as exc:
        entry.update(set=None, error=str(exc)[:200])
        return entry
    now = action.read()
    if now != action.quiet:
        entry.update(set=now, error="it did not take")
    return entry


def _watch(pipe: int, settings: Settings) -> None:
    """The guardian: wait for the agent's end, restore, exit."""
    try:
        os.setsid()  # a kill of the agent's group must not reach us
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)  # the agent's own pipes end with the agent
        while os.read(pipe, 1):
            continue
        settings.undo_for_agent()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
