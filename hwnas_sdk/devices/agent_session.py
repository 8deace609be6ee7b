"""`AgentSession`: a device that runs our agent, whatever transport reaches it.

What is kept where: the board journals a job's events before it sends them, so a host that dies
loses nothing. The next session of the same owner waits for the orphan to finish (it holds the
board's lease until then) and reads the journal.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NoReturn

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock, Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.types import Artifact, DeviceSpec, Origin
from hwnas_sdk.devices.board import spec_from_probe
from hwnas_sdk.devices.jobs import ItemResult, JobResult, MeasureJob
from hwnas_sdk.devices.journal import JobAssembler, JournalError
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.timeouts import Timeouts, job_deadline_s
from hwnas_sdk.devices.transports.base import Transport
from hwnas_sdk.devices.wire import PROTOCOL_VERSION, AgentRefusedError, Message, Wire

_LOG = logging.getLogger(__name__)


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

        Raises: DeviceError when the agent does not start or speaks another protocol.
        """
        self.origin = origin
        self.needs_artifacts = True
        self._transport = transport
        self._name = name
        self._owner = owner
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._lease: str | None = None
        self._closed = False
        self._channel = transport.start()
        self._wire = Wire(self._channel, device_id=name)
        try:
            self._hello = self._greet()
            self.spec = self._spec_of(self.probe(), uri=uri)
        except BaseException:
            self.close()
            raise

    def probe(self) -> dict[str, Any]:
        """Ask the agent to look at its board again."""
        self._refuse_when_closed()
        reply = self._wire.request("probe", timeout_s=self._timeouts.probe_s)
        return {key: value for key, value in reply.items() if key not in {"type", "re", "id"}}

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Lease the board, push what is missing, run the job; see `DeviceSession.measure`."""
        self._refuse_when_closed()
        lease = self._take_lease(on_event)
        bad, items = self._push_items(job)
        if not items:
            return self._complete(job, JobResult(job_id=job.id, items=()), bad)
        deadline_s = job_deadline_s(job.settings, len(items))
        request = {
            "lease": lease,
            "job": job.id,
            "options": _options_of(job),
            "settings": job.settings.to_json(),
            "items": items,
            "sentinel": self._push_sentinel(job.sentinel),
            "seed": job.seed,
            "deadline_s": deadline_s,
        }
        assembler = JobAssembler(job)
        try:
            started_at = self._clock.now().isoformat(timespec="milliseconds")
            self._submit(request, on_event)
            clocks = self._follow(job, assembler, on_event, job_s=deadline_s)
        except BaseException as exc:
            _LOG.info("leaving job %s on %s: %r", job.id, self._name, exc)
            self._abandon(job.id)
            raise
        environment = {"measured_at": started_at, "requested": _options_of(job), **clocks}
        return self._complete(job, assembler.result(extra_environment=environment), bad)

    def recover(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult | None:
        """Read the board's journal of `job`; see `DeviceSession.recover`."""
        self._refuse_when_closed()
        assembler = JobAssembler(job)
        self._fetch(job, assembler)
        if not assembler.is_done:
            # Whoever holds the board may be the orphan that is still measuring this very job, even
            # one that has not begun its journal yet. With the lease in hand it is surely over.
            self._take_lease(on_event)
            self._fetch(job, assembler)
        if assembler.last_seq == 0 and not assembler.is_done:
            return None
        environment = {
            "measured_at": self._clock.now().isoformat(timespec="milliseconds"),
            "requested": _options_of(job),
            "recovered": True,
        }
        result = assembler.result(extra_environment=environment)
        return result if any(entry.was_tried for entry in result.items) else None

    def forget(self, job_id: str) -> None:
        """Delete the board's journal of `job_id`; unknown jobs are fine."""
        self._refuse_when_closed()
        self._request("forget", job=job_id)

    def clean(self, keep: AbstractSet[str]) -> int:
        """Remove artifacts that are not in `keep`, while nobody else uses the board."""
        self._refuse_when_closed()
        self._take_lease(ignore)
        return self._transport.clean(keep)

    def close(self) -> None:
        """Release the lease and end the agent."""
        if self._closed:
            return
        self._closed = True
        if self._wire.broken is None:
            try:
                if self._lease is not None:
                    self._request("release", lease=self._lease)
                self._request("bye")
            except DeviceError as exc:
                _LOG.debug("closing %r: %s", self._name, exc)
        grace_s = self._timeouts.close_s if self._wire.broken is None else 0.0
        self._channel.close(grace_s=grace_s)
        self._wire.join(timeout_s=1.0)

    def _greet(self) -> Message:
        """Exchange versions with the agent."""
        hello = self._wire.request(
            "hello",
            timeout_s=self._timeouts.start_s,
            protocol=[PROTOCOL_VERSION, PROTOCOL_VERSION],
            owner=self._owner,
        )
        if hello.get("protocol") != PROTOCOL_VERSION:
            raise DeviceError(
                f"the agent on {self._name!r} speaks protocol {hello.get('protocol')!r}, "
                f"not {PROTOCOL_VERSION}",
                device_id=self._name,
                code="protocol_version",
                hint="update hwnas-sdk on this host",
            )
        return hello

    # --- leases -------------------------------------------------------------------------------

    def _take_lease(self, on_event: EventSink) -> str:
        """Return the lease, waiting (bounded) while somebody holds it."""
        if self._lease is not None:
            return self._lease
        began_s = self._clock.monotonic_s()
        announced = False
        pause_s = self._timeouts.lease_poll_s
        while True:
            try:
                reply = self._request("lease", owner=self._owner, ttl_s=60.0)
            except AgentRefusedError as exc:
                if exc.code != "board_busy":
                    raise
                holder = exc.details.get("holder") or {}
                is_ours = holder.get("owner") == self._owner
                waited_s = self._clock.monotonic_s() - began_s
                limit_s = self._timeouts.lease_own_s if is_ours else self._timeouts.lease_other_s
                if waited_s >= limit_s:
                    self._refuse_busy(holder, waited_s, exc)
                if not announced:
                    announced = True
                    who = "an earlier run of yours" if is_ours else f"{holder.get('owner')!r}"
                    message = f"{self._name} is busy: {who} (process {holder.get('pid')}), waiting"
                    _LOG.info(message)
                    on_event(Event(f"lease {self._name}", message=message, data=dict(holder)))
                self._clock.sleep(min(pause_s, limit_s - waited_s))
                pause_s = min(1.5 * pause_s, 2.0)  # asking costs the measuring board a little
                continue
            self._lease = str(reply["lease"])
            return self._lease

    def _refuse_busy(
        self, holder: Mapping[str, Any], waited_s: float, cause: Exception
    ) -> NoReturn:
        raise DeviceError(
            f"{self._name!r} is in use by {holder.get('owner')!r} (process {holder.get('pid')}); "
            f"waited {waited_s:.0f} s",
            device_id=self._name,
            code="board_busy",
            hint="try again when the other run has ended",
            retryable=True,
        ) from cause

    def _submit(self, request: Message, on_event: EventSink) -> None:
        """Hand the job over; a lease that ran out meanwhile (a laptop slept) is taken again."""
        try:
            self._request("measure", **request)
        except AgentRefusedError as exc:
            if exc.code != "lease_lost":
                raise
            self._lease = None
            self._request("measure", **{**request, "lease": self._take_lease(on_event)})

    # --- files --------------------------------------------------------------------------------

    def _push_items(self, job: MeasureJob) -> tuple[dict[str, ItemResult], list[Message]]:
        """Push what is missing; returns the items that cannot be sent and the requests of the rest.

        One bad file must not stop the others; a full disk stops everything.
        """
        bad: dict[str, ItemResult] = {}
        requests: list[Message] = []
        for entry in job.items:
            try:
                path = self._push(entry.artifact)
            except DeviceError as exc:
                if exc.code not in {"artifact_corrupt", "artifact_missing"}:
                    raise
                bad[entry.item] = ItemResult(
                    item=entry.item, error_code=exc.code, error_message=exc.message
                )
                continue
            assert entry.artifact is not None
            requests.append(
                {
                    "item": entry.item,
                    "sha256": entry.artifact.sha256,
                    "path": path,
                    "expected": None if entry.expected is None else list(entry.expected),
                    "input_seed": entry.input_seed,
                }
            )
        return bad, requests

    def _push(self, artifact: Artifact | None) -> str:
        if artifact is None:
            raise DeviceError(
                "the job names no file to run", device_id=self._name, code="artifact_missing"
            )
        return self._transport.push(Path(artifact.path), artifact.sha256)

    def _push_sentinel(self, sentinel: Artifact | None) -> Message | None:
        if sentinel is None:
            return None
        return {"sha256": sentinel.sha256, "path": self._push(sentinel)}

    @staticmethod
    def _complete(job: MeasureJob, result: JobResult, bad: Mapping[str, ItemResult]) -> JobResult:
        """Put the items that never reached the board back into the job's order."""
        if not bad:
            return result
        have = {entry.item: entry for entry in result.items} | dict(bad)
        fields = {name: getattr(result, name) for name in result.__slots__}
        fields["items"] = tuple(have[entry.item] for entry in job.items)
        return JobResult(**fields)

    # --- events -------------------------------------------------------------------------------

    def _follow(
        self, job: MeasureJob, assembler: JobAssembler, on_event: EventSink, *, job_s: float
    ) -> dict[str, Any]:
        """Take events until the job is over; returns both clocks' idea of how long it took."""
        deadline = Deadline.after(job_s + self._timeouts.job_grace_s, clock=self._clock)
        stamps: list[tuple[float, int]] = []
        while not assembler.is_done:
            event = self._wire.next_event(
                timeout_s=min(self._timeouts.silence_s, max(deadline.remaining_s, 0.01))
            )
            if event is None:
                self._check_alive(job, assembler, deadline)
                continue
            if self._take(job, assembler, event):
                if isinstance(event.get("t_ns"), int):
                    stamps.append((self._clock.monotonic_s(), event["t_ns"]))
                self._report(job, assembler, event, on_event)
        if len(stamps) < 2:
            return {}
        (host_first_s, board_first_ns), (host_last_s, board_last_ns) = stamps[0], stamps[-1]
        board_s = (board_last_ns - board_first_ns) / 1e9
        return {"clock": {"host_s": host_last_s - host_first_s, "board_s": board_s}}

    def _take(self, job: MeasureJob, assembler: JobAssembler, event: Message) -> bool:
        if event.get("job") != job.id:
            _LOG.debug("%s: event of another job: %s", self._name, event.get("job"))
            return False
        try:
            return assembler.feed(event)
        except JournalError as exc:
            self._wire.fail_protocol(f"sent an impossible event: {exc}")

    def _check_alive(self, job: MeasureJob, assembler: JobAssembler, deadline: Deadline) -> None:
        """Nothing heard for a while: ask for what was missed; a hung agent does not answer."""
        if deadline.expired:
            self._wire.fail_hung(f"was still measuring job {job.id} long after its deadline")
        self._fetch(job, assembler)

    def _fetch(self, job: MeasureJob, assembler: JobAssembler) -> None:
        reply = self._request("fetch", job=job.id, since=assembler.last_seq)
        last_seq = reply.get("last_seq")
        if isinstance(last_seq, int):
            assembler.expect_overlap(last_seq)
        for event in self._wire.take_events():
            self._take(job, assembler, event)

    def _report(
        self, job: MeasureJob, assembler: JobAssembler, event: Message, on_event: EventSink
    ) -> None:
        """Tell the caller how far the job is."""
        kind, item = event.get("event"), event.get("item")
        message = ""
        if kind == "failed":
            message = f"{item}: {event.get('code')}: {event.get('message')}"
        on_event(
            Event(
                f"measure {self._name}",
                done=assembler.n_over,
                total=len(job.items),
                message=message,
                data={"event": kind, "item": item, "job": job.id},
            )
        )

    def _abandon(self, job_id: str) -> None:
        """Stop a job nobody waits for any more, so that the board is free when we leave."""
        if self._wire.broken is not None:
            return
        with contextlib.suppress(DeviceError):
            self._request("cancel", job=job_id)
        self._wire.take_events()

    # --- small things -------------------------------------------------------------------------

    def _request(self, kind: str, **fields: Any) -> Message:
        return self._wire.request(kind, timeout_s=self._timeouts.reply_s, **fields)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise DeviceError(
                f"the session with {self._name!r} is closed",
                device_id=self._name,
                code="session_closed",
                hint="open a new one",
            )

    def _spec_of(self, probe: Mapping[str, Any], *, uri: str) -> DeviceSpec:
        try:
            return spec_from_probe(probe, self._hello, name=self._name, uri=uri)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            self._wire.fail_protocol(f"described its board incompletely: {exc!r}")


def _options_of(job: MeasureJob) -> dict[str, Any]:
    """What the board is asked to set; the answer says what it could."""
    return {
        "runtime": job.settings.runtime,
        "threads": job.settings.threads,
        "affinity": "auto",
        "nice": -20,
        "providers": None,
    }
