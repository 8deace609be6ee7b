"""`AgentSession`: a device that runs our agent, whatever transport reaches it.

What is kept where: the board journals a job's events before it sends them, so neither a host that
dies nor a link that breaks loses anything. A session whose link broke connects again and goes on
with the same job; the next session of the same owner waits for an orphan to finish (it holds the
board's lease until then) and reads the journal.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.types import DeviceSpec, Origin
from hwnas_sdk.devices._agent_link import AgentLink
from hwnas_sdk.devices._job_follow import JobFollower
from hwnas_sdk.devices._job_request import JobFiles, options_of
from hwnas_sdk.devices.board import spec_from_probe
from hwnas_sdk.devices.jobs import ItemResult, JobResult, MeasureJob
from hwnas_sdk.devices.session import Cleaned, DeviceSession
from hwnas_sdk.devices.timeouts import Timeouts, job_deadline_s
from hwnas_sdk.devices.transports.base import Channel, Transport
from hwnas_sdk.devices.wire import AgentRefusedError, Message

_LOG = logging.getLogger(__name__)
_MAX_RECONNECTS: Final = 20
"""Per job; each has its own limit of time. A link that breaks more often carries no job."""

_Result = TypeVar("_Result")


class AgentSession(DeviceSession):
    """Speaks protocol v1 with the agent at the other end of a `Transport`."""

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        uri: str,
        owner: str,
        origin: Origin = "measured",
        timeouts: Timeouts | None = None,
        clock: Clock = SYSTEM_CLOCK,
        governor: str | None = None,
        providers: Sequence[str] = (),
    ) -> None:
        """Start the agent and ask what it is.

        Args:
            transport: how to reach the board.
            name: the device's name in the inventory.
            uri: where it is.
            owner: who asks; jobs of one owner can be recovered by another session of it.
            origin: of its numbers.
            timeouts: how long to wait for what.
            clock: for labels and the comparison with the board's clock.
            governor: clock governor to ask the board for during a job; None leaves it alone.
            providers: ONNX Runtime's execution providers; none is the CPU.

        Raises: DeviceError when the agent does not start or speaks another protocol.
        """
        self.origin = origin
        self.needs_artifacts = True
        self._name = name
        self._governor = governor
        self._providers = tuple(providers)
        self._closed = False
        self._link = AgentLink(
            transport, name=name, owner=owner, timeouts=timeouts or Timeouts(), clock=clock
        )
        try:
            self.spec = self._spec_of(self.probe(), uri=uri)
        except BaseException:
            self.close()
            raise

    def probe(self) -> dict[str, Any]:
        """Ask the agent to look at its board again."""
        self._refuse_when_closed()
        reply = self._link.request("probe", timeout_s=self._link.timeouts.probe_s)
        return {key: value for key, value in reply.items() if key not in {"type", "re", "id"}}

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Lease the board, push what is missing, run the job; see `DeviceSession.measure`.

        A link that breaks is mended and the job followed further. When the board's agent was ended
        meanwhile, the outcome is "crashed" and the networks it had finished are in the result.
        """
        self._refuse_when_closed()
        follower = JobFollower(self._link, job, on_event)
        try:
            return self._measure(job, follower, on_event)
        except DeviceError as exc:
            if not self._link.can_mend(exc):
                raise
            return self._resume(job, follower, exc, on_event)

    def recover(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult | None:
        """Read the board's journal of `job`; see `DeviceSession.recover`."""
        self._refuse_when_closed()
        follower = JobFollower(self._link, job, on_event)
        if not self._insist(follower.catch_up, on_event):
            return None
        result = follower.result(requested=self._options(job), recovered=True)
        return result if any(entry.was_tried for entry in result.items) else None

    def forget(self, job_id: str) -> None:
        """Delete the board's journal of `job_id`; unknown jobs are fine."""
        self._refuse_when_closed()
        self._insist(lambda: self._link.request("forget", job=job_id), ignore)

    def clean(self, keep: AbstractSet[str], *, journals: bool = False) -> Cleaned:
        """Remove artifacts not in `keep`, old agents and leftovers, while nobody uses the board.

        With `journals`, also those of finished jobs nobody has fetched.
        """
        self._refuse_when_closed()

        def ask() -> Message:
            lease = self._link.take_lease(ignore)
            return self._link.request("clean", lease=lease, keep=sorted(keep), journals=journals)

        reply = self._insist(ask, ignore)
        self._link.transport.forget_pushed()
        n_files, n_bytes = reply.get("files"), reply.get("bytes")
        if not isinstance(n_files, int) or not isinstance(n_bytes, int):
            self._link.wire.fail_protocol("did not say what it removed")
        return Cleaned(files=n_files, bytes=n_bytes)

    def close(self) -> None:
        """Release the lease and end the agent."""
        if not self._closed:
            self._closed = True
            self._link.close()

    @property
    def _channel(self) -> Channel:
        return self._link.channel

    # --- one job ------------------------------------------------------------------------------

    def _measure(self, job: MeasureJob, follower: JobFollower, on_event: EventSink) -> JobResult:
        lease = self._link.take_lease(on_event)
        files = JobFiles(self._link.transport, job, device_id=self._name)
        follower.bad = files.bad
        if not files.items:
            return follower.result()
        deadline_s = job_deadline_s(job.settings, len(files.items))
        request = {
            "lease": lease,
            "job": job.id,
            "options": self._options(job),
            "settings": job.settings.to_json(),
            "items": files.items,
            "sentinel": files.sentinel,
            "seed": job.seed,
            "deadline_s": deadline_s,
        }
        try:
            self._submit(request, on_event)
            follower.follow(job_s=deadline_s)
        except BaseException as exc:
            _LOG.info("leaving job %s on %s: %r", job.id, self._name, exc)
            self._abandon(job.id)
            raise
        result = follower.result(requested=self._options(job))
        if any(entry.error_code == "artifact_missing" for entry in result.items):
            # The board's house-keeping took what we had pushed earlier: look again next time.
            self._link.transport.forget_pushed()
        return result

    def _submit(self, request: Message, on_event: EventSink) -> None:
        """Hand the job over; a lease that ran out meanwhile (a laptop slept) is taken again."""
        try:
            self._link.request("measure", **request)
        except AgentRefusedError as exc:
            if exc.code != "lease_lost":
                raise
            self._link.lease = None
            lease = self._link.take_lease(on_event)
            self._link.request("measure", **{**request, "lease": lease})

    def _resume(
        self, job: MeasureJob, follower: JobFollower, cause: DeviceError, on_event: EventSink
    ) -> JobResult:
        """Connect again and go on with `job`, wherever it is by now.

        Raises: DeviceError when the board does not come back, or came back with nothing done.
        """
        limit_s = job_deadline_s(job.settings, len(job.items)) + self._link.timeouts.job_grace_s
        boot_id = self._link.hello.get("boot_id")
        for _ in range(_MAX_RECONNECTS):
            self._link.reconnect(cause, on_event)
            try:
                if not follower.catch_up(own_limit_s=limit_s):
                    return self._measure(job, follower, on_event)  # the board never got it
                break
            except DeviceError as exc:
                if not self._link.can_mend(exc):
                    raise
                cause = exc
        else:
            raise cause
        result = follower.result(requested=self._options(job), recovered=True)
        sent = [entry for entry in result.items if entry.item not in follower.bad]
        if result.outcome == "crashed":
            self._report_crash(boot_id, result, sent, cause, on_event)
        return result

    def _report_crash(
        self,
        boot_id: object,
        result: JobResult,
        sent: Sequence[ItemResult],
        cause: DeviceError,
        on_event: EventSink,
    ) -> None:
        """Say what the board lost. Raises: DeviceError when no network was finished."""
        restarted = self._link.hello.get("boot_id") != boot_id
        what = "was restarted" if restarted else "lost its agent"
        n_kept = sum(entry.error_code != "truncated" for entry in sent)
        if n_kept == 0:
            raise DeviceError(
                f"{self._name!r} {what} before a network was finished ({cause.message})",
                device_id=self._name,
                code="agent_died",
                hint="the same command continues; when it happens again, look at its power supply "
                "and memory",
                retryable=True,
            ) from cause
        message = f"{self._name} {what}: {n_kept} of {len(result.items)} networks are kept"
        _LOG.info(message)
        on_event(Event(f"link {self._name}", message=message))

    def _abandon(self, job_id: str) -> None:
        """Stop a job nobody waits for any more, so that the board is free when we leave."""
        if self._link.wire.broken is not None:
            return
        with contextlib.suppress(DeviceError):
            self._link.request("cancel", job=job_id)
        self._link.wire.take_events()

    # --- small things -------------------------------------------------------------------------

    def _insist(self, action: Callable[[], _Result], on_event: EventSink) -> _Result:
        """Do `action`, once more over a new connection when the link breaks; it can be repeated."""
        try:
            return action()
        except DeviceError as exc:
            if not self._link.can_mend(exc):
                raise
            self._link.reconnect(exc, on_event)
            return action()

    def _options(self, job: MeasureJob) -> dict[str, Any]:
        return dict(options_of(job, governor=self._governor, providers=self._providers))

    def _spec_of(self, probe: Mapping[str, Any], *, uri: str) -> DeviceSpec:
        try:
            return spec_from_probe(probe, self._link.hello, name=self._name, uri=uri)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            self._link.wire.fail_protocol(f"described its board incompletely: {exc!r}")
