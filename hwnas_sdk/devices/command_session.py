"""`CommandSession`: a board that runs no Python, measured with a program the user brings.

The host plans, the board's shell runs the plan (see `command_script`) and keeps everything it says,
so a lost link loses nothing. What the host makes of it is the same after a loss as without one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock, Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.types import Origin
from hwnas_sdk.devices.command_board import big_cores, environment_of, quiet_of, spec_of
from hwnas_sdk.devices.command_conditions import check_conditions
from hwnas_sdk.devices.command_energy import LIMIT_S as ENERGY_LIMIT_S
from hwnas_sdk.devices.command_files import BoardFiles
from hwnas_sdk.devices.command_job import (
    Ended,
    Invocation,
    n_blocks,
    plan_blocks,
    plan_calibration,
    plan_energy,
    read_result,
)
from hwnas_sdk.devices.command_link import JobLink, JobNotes
from hwnas_sdk.devices.command_runners import Runner
from hwnas_sdk.devices.jobs import SENTINEL, JobResult, MeasureJob
from hwnas_sdk.devices.session import Cleaned, DeviceSession
from hwnas_sdk.devices.timeouts import Timeouts, job_deadline_s
from hwnas_sdk.devices.transports.shell import BoardShell

_LOG = logging.getLogger(__name__)
_CALIBRATION_S = 150.0


class CommandSession(DeviceSession):
    """A board behind a shell, and a runner for it."""

    def __init__(
        self,
        shell: BoardShell,
        *,
        name: str,
        uri: str,
        owner: str,
        work: str,
        program: Path,
        runner: Runner,
        cores: Sequence[int] | None = None,
        timeouts: Timeouts | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Bring the runner to the board (once per version), try it, and look what the board is.

        Args:
            shell: how to reach the board.
            name: the device's name in the inventory.
            uri: where it is.
            owner: who asks; jobs of one owner can be recovered by another session of it.
            work: folder on the board; may begin with ``$HOME``.
            program: the runner's file on this host, made for the board.
            runner: what kind of runner that is.
            cores: to run on; None takes the strongest.
            timeouts: how long to wait for what.
            clock: for labels and waits.

        Raises: DeviceError "runner_missing", "runner_unusable", "deploy_failed" or "no_space", or
        as `BoardShell.run`.
        """
        self.origin: Origin = "measured"
        self.needs_artifacts = True
        self._name = name
        self._uri = uri
        self._owner = owner
        self._runner = runner
        self._cores = None if cores is None else tuple(cores)
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._shell = shell
        self._closed = False
        try:
            self._files = BoardFiles(shell, work)
            self._program = self._files.bring_program(program)
            found = self.probe()
            self.spec = spec_of(
                self._facts,
                name=name,
                uri=uri,
                runtimes=found["runtimes"],
                power=found["power"],
            )
        except BaseException:
            self.close()
            raise

    def probe(self) -> dict[str, Any]:
        """Look at the board again; see `DeviceSession.probe`."""
        self._refuse_when_closed()
        self._facts = self._files.look()
        runtimes = {
            self._runner.runtime: {
                "version": f"{self._program.name} {self._program.sha256[:12]}",
                "providers": ["CPU"],
                "runner": self._runner.kind,
                "sha256": self._program.sha256,
            }
        }
        spec = spec_of(
            self._facts,
            name=self._name,
            uri=self._uri,
            runtimes=runtimes,
            power=self._facts.power,
        )
        return {
            "device": spec.details["device"],
            "environment": environment_of(self._facts, self._used_cores),
            "runtimes": runtimes,
            "power": spec.details["power"],
            "quiet": quiet_of(self._facts),
        }

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Calibrate, then run the rounds; see `DeviceSession.measure`."""
        self._refuse_when_closed()
        self._facts = self._files.look()
        check_conditions(self._facts.conditions, device_id=self._name)
        bad, models = self._push(job)
        notes = self._notes(job, bad)
        names = [entry.item for entry in job.items if entry.item in models]
        if not names:
            return self._result(job, notes, {}, state="done")
        if SENTINEL in models:
            names.insert(0, SENTINEL)
        link = self._link(job)
        notes = notes.with_plan(plan_calibration(names))
        try:
            self._begin(link, job, notes, models, on_event)
            self._follow(job, link, notes, on_event, until=len(notes.plan))
            tried = {one.item: link.ended[one.number] for one in notes.plan}
            blocks = plan_blocks(job.settings, tried, first=len(notes.plan) + 1, seed=job.seed)
            if job.settings.energy and self._facts.power["source"]:
                first = len(notes.plan) + len(blocks) + 1
                items = [name for name in names if name != SENTINEL]
                blocks += plan_energy(tried, items, first=first)
            notes = notes.with_plan([*notes.plan, *blocks])
            link.go_on(notes, self._script(blocks, models, job, snapshots=True))
            state = self._follow(job, link, notes, on_event, until=None)
        except BaseException as exc:
            _LOG.info("leaving job %s on %s: %r", job.id, self._name, exc)
            if not (isinstance(exc, DeviceError) and exc.retryable):
                with contextlib.suppress(DeviceError):
                    link.cancel()
            raise
        return self._result(job, notes, link.ended, state=state, link=link)

    def recover(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult | None:
        """Read what the board kept of `job`; see `DeviceSession.recover`."""
        self._refuse_when_closed()
        link = self._link(job)
        notes = link.fetch_notes()
        if notes is None:
            return None
        state = self._follow(job, link, notes, on_event, until=None)
        notes = link.fetch_notes() or notes
        link.read(notes)
        result = self._result(job, notes, link.ended, state=state, link=link, recovered=True)
        return result if any(entry.was_tried for entry in result.items) else None

    def forget(self, job_id: str) -> None:
        """Delete what the board keeps of `job_id`; unknown jobs are fine."""
        self._refuse_when_closed()
        self._files.forget(job_id)

    def clean(self, keep: AbstractSet[str], *, journals: bool = False) -> Cleaned:
        """Remove networks that are not in `keep`, other runners, and leftovers."""
        self._refuse_when_closed()
        return self._files.clean(keep, journals=journals, program=self._program)

    def close(self) -> None:
        """End the connection; a running job goes on."""
        if not self._closed:
            self._closed = True
            self._shell.close()

    # --- a job --------------------------------------------------------------------------------

    @property
    def _used_cores(self) -> tuple[int, ...]:
        if "taskset" not in self._facts.tools:
            return ()
        return big_cores(self._facts) if self._cores is None else self._cores

    def _link(self, job: MeasureJob) -> JobLink:
        return JobLink(
            self._shell,
            self._files,
            job_id=job.id,
            runner=self._runner,
            owner=self._owner,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    def _push(self, job: MeasureJob) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
        """Bring the networks; returns item -> error, and item -> path on the board."""
        bad: dict[str, tuple[str, str]] = {}
        wanted: dict[str, tuple[Path, str]] = {}
        entries = [(entry.item, entry.artifact) for entry in job.items]
        for item, artifact in [*entries, (SENTINEL, job.sentinel)]:
            if artifact is None:
                if item != SENTINEL:
                    bad[item] = ("artifact_missing", "the job names no file to run")
            elif Path(artifact.path).suffix != self._runner.suffix:
                suffix = Path(artifact.path).suffix or "this one"
                text = f"{self._runner.kind} runs {self._runner.suffix} files only, not {suffix}"
                bad[item] = ("model_unsupported", text)
            else:
                wanted[item] = (Path(artifact.path), artifact.sha256)
        found = self._files.bring_networks(list(wanted.values()))
        models: dict[str, str] = {}
        for item, (source, sha256) in wanted.items():
            path_or_error = found[source, sha256]
            if isinstance(path_or_error, DeviceError):
                bad[item] = (path_or_error.code, path_or_error.message)
            else:
                models[item] = path_or_error
        return bad, models

    def _notes(self, job: MeasureJob, bad: Mapping[str, tuple[str, str]]) -> JobNotes:
        cores = self._used_cores
        environment = environment_of(self._facts, cores)
        environment["options"] = {
            "name": self._runner.runtime,
            "runner": self._runner.kind,
            "runner_sha256": self._program.sha256,
            "runtime_version": self._program.sha256[:12],
            "threads": job.settings.threads,
            "cores": list(cores) or None,
            "nice": -20 if quiet_of(self._facts)["nice"] else None,
            "feed": "random, made by the runner",
            "blocks": n_blocks(job.settings),
        }
        environment["requested"] = {
            "runtime": self._runner.runtime,
            "threads": job.settings.threads,
            "affinity": "auto" if self._cores is None else list(self._cores),
            "nice": -20,
            "providers": None,
        }
        environment["power_reason"] = self._facts.power["reason"]
        environment["measured_at"] = self._clock.now().isoformat(timespec="milliseconds")
        return JobNotes(plan=(), bad=bad, environment=environment)

    def _begin(
        self,
        link: JobLink,
        job: MeasureJob,
        notes: JobNotes,
        models: Mapping[str, str],
        on_event: EventSink,
    ) -> None:
        """Start the job script; waits (bounded) while somebody else has the board."""
        script = self._script(notes.plan, models, job, snapshots=False)
        limit_s = job_deadline_s(job.settings, len(job.items)) + _CALIBRATION_S * len(notes.plan)
        if job.settings.energy:
            limit_s += ENERGY_LIMIT_S * len(job.items)
        began_s, announced = self._clock.monotonic_s(), False
        while (holder := link.begin(notes, script, limit_s=round(limit_s))) is not None:
            is_ours = holder.owner == self._owner
            waited_s = self._clock.monotonic_s() - began_s
            allowed_s = self._timeouts.lease_own_s if is_ours else self._timeouts.lease_other_s
            if waited_s >= allowed_s:
                raise DeviceError(
                    f"{self._name!r} is in use by {holder.owner!r} (process {holder.pid}, job "
                    f"{holder.job}); waited {waited_s:.0f} s",
                    device_id=self._name,
                    code="board_busy",
                    hint="try again when the other run has ended",
                    retryable=True,
                )
            if not announced:
                announced = True
                who = "an earlier run of yours" if is_ours else repr(holder.owner)
                message = f"{self._name} is busy: {who} (process {holder.pid}), waiting"
                on_event(Event(f"lease {self._name}", message=message))
            self._clock.sleep(min(1.0, max(allowed_s - waited_s, 0.01)))

    def _script(
        self,
        plan: Sequence[Invocation],
        models: Mapping[str, str],
        job: MeasureJob,
        *,
        snapshots: bool,
    ) -> str:
        prefix: list[str] = []
        if quiet_of(self._facts)["nice"]:
            prefix += ["nice", "-n", "-20"]
        return self._files.plan_text(
            plan,
            models,
            runner=self._runner,
            program=self._program,
            prefix=prefix,
            cores=self._used_cores,
            threads=job.settings.threads,
            is_android=snapshots and self._facts.is_android,
            gauge=self._facts.gauge,
        )

    def _follow(
        self,
        job: MeasureJob,
        link: JobLink,
        notes: JobNotes,
        on_event: EventSink,
        *,
        until: int | None,
    ) -> str:
        """Wait for invocation `until`, or the end; returns the job's state."""
        deadline = Deadline.after(
            sum(one.limit_s + (60.0 if one.is_energy else 0.0) for one in notes.plan)
            + self._timeouts.job_grace_s,
            clock=self._clock,
        )
        while True:
            state = link.poll(notes)
            for one, ended in link.take_news():
                on_event(self._event(job, notes, link, one, ended))
            if state != "running" or (until is not None and until in link.ended):
                if until is not None and until not in link.ended:
                    raise self._broke_off(job, state)
                return state
            if deadline.expired:
                with contextlib.suppress(DeviceError):
                    link.cancel()
                raise DeviceError(
                    f"{self._name!r} was still running job {job.id} long after its deadline",
                    device_id=self._name,
                    code="deadline",
                    hint="is the board overloaded?",
                    retryable=True,
                )

    def _broke_off(self, job: MeasureJob, state: str) -> DeviceError:
        """The error for a calibration that did not come to its end."""
        full = state == "no_space"
        return DeviceError(
            f"the disk of {self._name!r} is full"
            if full
            else f"job {job.id} broke off on {self._name!r} while it began ({state})",
            device_id=self._name,
            code="no_space" if full else "agent_died",
            hint=f"free some space there: hwnas devices clean {self._name}"
            if full
            else "the same command tries again",
            retryable=not full,
        )

    def _event(
        self, job: MeasureJob, notes: JobNotes, link: JobLink, one: Invocation, ended: Ended
    ) -> Event:
        """Progress: networks that are over."""
        left = {other.item for other in notes.plan if other.number not in link.ended}
        planned = any(other.is_block for other in notes.plan)
        failed = {other.item for other in notes.plan if _failed(link.ended.get(other.number))}
        over = sum(
            entry.item in notes.bad or entry.item in failed or (planned and entry.item not in left)
            for entry in job.items
        )
        message = "" if ended.error is None else f"{one.item}: {': '.join(ended.error)}"
        return Event(
            f"measure {self._name}",
            done=over,
            total=len(job.items),
            message=message,
            data={
                "event": "failed" if ended.error else "block" if one.is_block else "loaded",
                "item": one.item,
                "job": job.id,
            },
        )

    def _result(
        self,
        job: MeasureJob,
        notes: JobNotes,
        ended: Mapping[int, Ended],
        *,
        state: str,
        link: JobLink | None = None,
        recovered: bool = False,
    ) -> JobResult:
        environment = dict(notes.environment)
        snapshots = [] if link is None else link.snapshots()
        if snapshots:
            environment["snapshots"] = [entry.to_json() for entry in snapshots]
            environment["end"] = {
                "temperature_c": snapshots[-1].cpu_c,
                "android": snapshots[-1].to_json(),
            }
        if recovered:
            environment["recovered"] = True
        reason = notes.environment.get("power_reason")
        if any(entry.charging for entry in snapshots):
            reason = "charging"
        return read_result(
            job,
            notes.plan,
            ended,
            state=state,
            runner=self._runner,
            bad=notes.bad,
            environment=environment,
            throttled=any(entry.throttles for entry in snapshots),
            energy_reason=reason if job.settings.energy else None,
            powers={} if link is None else link.powers(),
        )


def _failed(ended: Ended | None) -> bool:
    return ended is not None and ended.error is not None
