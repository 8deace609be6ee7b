"""Following one job: its live events, and the board's journal for what was missed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.events import Event, EventSink
from hwnas_sdk.devices._agent_link import AgentLink
from hwnas_sdk.devices.jobs import ItemResult, JobResult, MeasureJob
from hwnas_sdk.devices.journal import JobAssembler, JournalError
from hwnas_sdk.devices.wire import Message

_LOG = logging.getLogger(__name__)


class JobFollower:
    """Collects the events of `job`, whatever connection they come over.

    What has arrived is kept when the link breaks; the journal is then read from there on.

    Attributes:
        assembler: what has been collected.
        bad: items that never reached the board, and why.
        started_at: when the host handed the job over (its own clock, for the label).
        clocks: both clocks' idea of how long the job took, once it was followed to its end.
    """

    def __init__(self, link: AgentLink, job: MeasureJob, on_event: EventSink) -> None:
        self._link = link
        self._job = job
        self._on_event = on_event
        self.assembler = JobAssembler(job)
        self.started_at = link.clock.now().isoformat(timespec="milliseconds")
        self.bad: Mapping[str, ItemResult] = {}
        self.clocks: dict[str, Any] = {}

    @property
    def is_known(self) -> bool:
        """Whether anything was heard of the job."""
        return self.assembler.last_seq > 0

    @property
    def is_over(self) -> bool:
        """Whether the job's last event was heard."""
        return self.assembler.is_done

    def result(self, **environment: Any) -> JobResult:
        """What has been collected, with `environment` beside the board's.

        Items in `bad` only make a job without a board: nothing was run, and it is done.
        """
        extra = {"measured_at": self.started_at, **environment, **self.clocks}
        if all(entry.item in self.bad for entry in self._job.items):
            items = tuple(self.bad[entry.item] for entry in self._job.items)
            return JobResult(job_id=self._job.id, items=items)
        try:
            result = self.assembler.result(extra_environment=extra)
        except (TypeError, ValueError, AttributeError, OverflowError) as exc:
            self._link.wire.fail_protocol(f"sent a result that makes no sense: {exc!r}")
        items = tuple(self.bad.get(entry.item, entry) for entry in result.items)
        fields = {name: getattr(result, name) for name in result.__slots__}
        return JobResult(**{**fields, "items": items})

    def follow(self, *, job_s: float) -> None:
        """Take live events until the job is over, at most `job_s` and a grace."""
        clock, timeouts = self._link.clock, self._link.timeouts
        deadline = Deadline.after(job_s + timeouts.job_grace_s, clock=clock)
        stamps: list[tuple[float, int]] = []
        while not self.assembler.is_done:
            event = self._link.wire.next_event(
                timeout_s=min(timeouts.silence_s, max(deadline.remaining_s, 0.01))
            )
            if event is None:
                self._check_alive(deadline)
            elif self._take(event) and isinstance(event.get("t_ns"), int):
                stamps.append((clock.monotonic_s(), event["t_ns"]))
        if len(stamps) >= 2:
            (host_first_s, board_first_ns), (host_last_s, board_last_ns) = stamps[0], stamps[-1]
            board_s = (board_last_ns - board_first_ns) / 1e9
            self.clocks = {"clock": {"host_s": host_last_s - host_first_s, "board_s": board_s}}

    def catch_up(self, *, own_limit_s: float | None = None) -> bool:
        """Read the journal, waiting while another agent of ours still measures the job.

        False when the board knows nothing of it. With the lease in hand it is surely over: whoever
        holds the board may be measuring this very job, even without having begun its journal.
        """
        if not self._fetch():
            self._link.take_lease(self._on_event, own_limit_s=own_limit_s, is_over=self._fetch)
            self._fetch()
        return self.is_known

    def _fetch(self) -> bool:
        """Ask for the events that are missing; True when the job is over."""
        if self.is_over:
            return True
        reply = self._link.request("fetch", job=self._job.id, since=self.assembler.last_seq)
        last_seq = reply.get("last_seq")
        if isinstance(last_seq, int):
            self.assembler.expect_overlap(last_seq)
        for event in self._link.wire.take_events():
            self._take(event)
        # A board that lost power may have lost the end of its journal, which we had heard: then
        # its last event never fits, and what we have is all there is.
        return reply.get("state") == "done" or self.is_over

    def _check_alive(self, deadline: Deadline) -> None:
        """Nothing heard for a while: ask for what was missed; a hung agent does not answer."""
        if deadline.expired:
            self._link.wire.fail_hung(
                f"was still measuring job {self._job.id} long after its deadline"
            )
        self._fetch()

    def _take(self, event: Message) -> bool:
        if event.get("job") != self._job.id:
            _LOG.debug("%s: event of another job: %s", self._link.name, event.get("job"))
            return False
        try:
            taken = self.assembler.feed(event)
        except JournalError as exc:
            self._link.wire.fail_protocol(f"sent an impossible event: {exc}")
        if taken:
            self._report(event)
        return taken

    def _report(self, event: Message) -> None:
        """Tell the caller how far the job is."""
        kind, item = event.get("event"), event.get("item")
        message = ""
        if kind == "failed":
            message = f"{item}: {event.get('code')}: {event.get('message')}"
        self._on_event(
            Event(
                f"measure {self._link.name}",
                done=self.assembler.n_over,
                total=len(self._job.items),
                message=message,
                data={"event": kind, "item": item, "job": self._job.id},
            )
        )
