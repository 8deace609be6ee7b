"""One job on a board without Python: begin it, follow it, fetch it again, end it."""

from __future__ import annotations

import io
import json
import logging
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hwnas_sdk.core.clock import Clock, Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.command_conditions import AndroidConditions, read_conditions
from hwnas_sdk.devices.command_files import BoardFiles, split_dumps
from hwnas_sdk.devices.command_job import Ended, Invocation, read_invocation
from hwnas_sdk.devices.command_runners import Runner
from hwnas_sdk.devices.command_script import (
    JOB_SCRIPT,
    cancel_command,
    frames_of,
    poll_command,
    start_command,
)
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.devices.transports.board_files import deploy_error
from hwnas_sdk.devices.transports.shell import BoardShell

_LOG = logging.getLogger(__name__)
_EXISTS: Final = 17
_NO_JOB: Final = 9
_POLL_S: Final = 5.0
_PAUSE_S: Final = (0.1, 1.0)
_LINK_CODES: Final = frozenset(
    {"link_lost", "unreachable", "deadline", "adb_offline", "adb_no_device"}
)


@dataclass(frozen=True, slots=True)
class JobNotes:
    """What the host leaves on the board, so that another process of it can read the results.

    Attributes:
        plan: every invocation planned so far.
        bad: networks that were not run at all: item -> code and message.
        environment: of the job, as far as known before it.
    """

    plan: Sequence[Invocation]
    bad: Mapping[str, tuple[str, str]]
    environment: Mapping[str, Any]

    def with_plan(self, plan: Sequence[Invocation]) -> JobNotes:
        """The same with another plan."""
        return replace(self, plan=tuple(plan))

    def to_bytes(self) -> bytes:
        """As the board keeps it."""
        document = {
            "version": 1,
            "plan": [one.to_json() for one in self.plan],
            "bad": {item: list(pair) for item, pair in self.bad.items()},
            "environment": dict(self.environment),
        }
        return json.dumps(document, allow_nan=False).encode()

    @classmethod
    def from_text(cls, text: str) -> JobNotes:
        """Inverse of `to_bytes`. Raises: ValueError, KeyError or TypeError when it is not."""
        document = json.loads(text)
        return cls(
            tuple(Invocation(**entry) for entry in document["plan"]),
            {item: (code, words) for item, (code, words) in document["bad"].items()},
            document["environment"],
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the board."""

    pid: str
    owner: str
    job: str


class JobLink:
    """Talks about one job; what was read of it stays.

    Attributes:
        ended: number -> what became of the invocation.
    """

    def __init__(
        self,
        shell: BoardShell,
        files: BoardFiles,
        *,
        job_id: str,
        runner: Runner,
        owner: str,
        timeouts: Timeouts,
        clock: Clock,
    ) -> None:
        self._shell = shell
        self._files = files
        self._job_id = job_id
        self._dir = files.job_dir(job_id)
        self._runner = runner
        self._owner = owner
        self._timeouts = timeouts
        self._clock = clock
        self._frames: dict[str, str] = {}
        self._news: list[tuple[Invocation, Ended]] = []
        self.ended: dict[int, Ended] = {}

    def begin(self, notes: JobNotes, script: str, *, limit_s: int) -> Holder | None:
        """Start the job; returns who has the board when it cannot.

        Raises: DeviceError "job_exists", "agent_not_started", "work_dir", "no_space", or as the
        shell's `run`.
        """
        folder = shlex.quote(self._dir)
        # A job that was refused because the board was busy left only its folder.
        prepare = (
            f"mkdir {folder} 2>/dev/null || {{ s=; read -r s < {folder}/state; "
            f"case $s in busy*) ;; *) exit {_EXISTS};; esac; rm -f {folder}/state; }}\n"
            f"tar -xf - -C {folder} || exit 42\n"
        )
        start = start_command(
            self._dir, self._files.lease, owner=self._owner, name=self._job_id, limit_s=limit_s
        )
        done = self._shell.run(
            prepare + start,
            stdin=_tar({"job.sh": JOB_SCRIPT, "plan.1": script, "meta": notes.to_bytes()}),
            timeout_s=60.0,
        )
        if done.status == _EXISTS:
            raise self._error(f"there is a job {self._job_id} already", "job_exists", "")
        if done.status == 42:
            raise deploy_error(self._shell, self._files.work, done)
        words = done.text.split()
        if words and words[0] == "busy":
            fields = [*words[1:], *6 * ["?"]]
            return Holder(pid=fields[0], owner=fields[4], job=fields[5])
        if words == ["lease_dir"]:
            raise self._error(f"{self._files.lease} cannot be made", "work_dir", "check its owner")
        if words == ["no_space"]:
            raise self._error("the board's disk is full", "no_space", "hwnas devices clean")
        if not words:
            text = f"the job did not start: {done.error_line}"
            raise self._error(text, "agent_not_started", "does the board's shell work?")
        return None

    def go_on(self, notes: JobNotes, script: str) -> None:
        """Give the second plan to a job that waits for it."""
        folder = shlex.quote(self._dir)
        # The plan last: the board begins as soon as it is there.
        command = (
            f"cd {folder} && mkdir -p next && tar -xf - -C next "
            "&& mv next/meta meta && mv next/plan.2 plan.2"
        )
        stdin = _tar({"meta": notes.to_bytes(), "plan.2": script})
        done = self._shell.run(command, stdin=stdin, timeout_s=60.0)
        if done.status != 0:
            raise deploy_error(self._shell, self._files.work, done)

    def poll(self, notes: JobNotes) -> str:
        """Wait a little for news and read them; returns the job's state.

        "running", or how it ended; "crashed" when its script is gone without a word. A lost link
        is waited for.
        Raises: DeviceError when it does not come back in time.
        """
        frames = self._look(wait_s=_POLL_S)
        if frames is None:
            return "crashed"
        self._frames |= frames
        self.read(notes)
        state = frames.get("state", "").strip() or "crashed"
        alive = frames.get("alive") == "1"
        return "crashed" if state == "running" and not alive else state

    def read(self, notes: JobNotes) -> None:
        """Understand what was fetched so far, by `notes`."""
        for one in notes.plan:
            if one.number not in self.ended:
                ended = read_invocation(one, self._frames, self._runner)
                if ended is not None:
                    self.ended[one.number] = ended
                    self._news.append((one, ended))

    def take_news(self) -> list[tuple[Invocation, Ended]]:
        """Invocations that ended since the last call."""
        news, self._news = self._news, []
        return news

    def fetch_notes(self) -> JobNotes | None:
        """The host's notes; None when the board knows no such job."""
        frames = self._look(wait_s=0.0, with_notes=True)
        if frames is None or "meta" not in frames:
            return None
        self._frames |= frames
        try:
            return JobNotes.from_text(frames["meta"])
        except (ValueError, KeyError, TypeError, AttributeError):
            _LOG.warning("the notes of job %s on the board are damaged", self._job_id)
            return None

    def snapshots(self) -> list[AndroidConditions]:
        """Conditions noted during the job, oldest first."""
        numbers = [
            int(name.removeprefix("snap."))
            for name in self._frames
            if name.startswith("snap.") and name[5:].isdigit()
        ]
        return [
            read_conditions(split_dumps(self._frames[f"snap.{number}"]))
            for number in sorted(numbers)
        ]

    def powers(self) -> dict[int, tuple[str, str, str]]:
        """What the gauge said around each energy invocation that is over."""
        found: dict[int, tuple[str, str, str]] = {}
        for name in self._frames:
            number = name.removeprefix("pow.").removesuffix(".after")
            if name.startswith("pow.") and number.isdigit():
                parts = [f"pow.{number}.{part}" for part in ("before", "during", "after")]
                before, during, after = (self._frames.get(part, "") for part in parts)
                found[int(number)] = (before, during, after)
        return found

    def cancel(self) -> None:
        """End the job on the board and confirm it. Raises: DeviceError as the shell's `run`."""
        done = self._shell.run(cancel_command(self._dir, self._files.lease), timeout_s=30.0)
        if done.status != 0:
            _LOG.warning("job %s on %s may still run", self._job_id, self._shell.device_id)

    def _look(self, *, wait_s: float, with_notes: bool = False) -> dict[str, str] | None:
        """Fetch what is new; None when there is no such job."""
        walls = [ended.wall_s for ended in self.ended.values()]
        typical_s = sum(walls) / len(walls) if walls else 0.0
        low_s, high_s = _PAUSE_S
        command = poll_command(
            self._dir,
            first=self._next(),
            wait_s=wait_s,
            pause_s=min(max(typical_s / 4.0, low_s), high_s),
            with_notes=with_notes,
        )
        deadline = Deadline.after(self._timeouts.reconnect_s, clock=self._clock)
        pause_s = 0.5
        while True:
            try:
                done = self._shell.run(command, timeout_s=wait_s + self._timeouts.reply_s)
                if done.status == _NO_JOB:
                    return None
                return dict(frames_of(done.stdout))
            except ValueError:
                if deadline.expired:
                    text = "the board's answer was cut short"
                    raise self._error(text, "link_lost", "the same command continues") from None
            except DeviceError as exc:
                if exc.code not in _LINK_CODES or deadline.expired:
                    raise
                _LOG.info("%s: %s; trying again", self._shell.device_id, exc)
            self._clock.sleep(pause_s)
            pause_s = min(2.0 * pause_s, 5.0)

    def _next(self) -> int:
        number = 1
        while f"done.{number}" in self._frames:
            number += 1
        return number

    def _error(self, text: str, code: str, hint: str) -> DeviceError:
        device_id = self._shell.device_id
        return DeviceError(f"{device_id!r}: {text}", device_id=device_id, code=code, hint=hint)


def _tar(files: Mapping[str, bytes | str]) -> bytes:
    """A small archive, made in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
