"""What sessions with devices that keep nothing between jobs have in common."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.devices.jobs import JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.session import Cleaned, DeviceSession


class KeepsNothingSession(DeviceSession):
    """A device without journal or artifacts: nothing to recover, forget or clean.

    Subclasses call `_refuse_when_closed` first in what they add.
    """

    def __init__(self, name: str) -> None:
        """Open the session with the device called `name`."""
        self._name = name
        self._closed = False

    def recover(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult | None:
        """Nothing is kept, so nothing is known."""
        del job, on_event
        self._refuse_when_closed()
        return None

    def forget(self, job_id: str) -> None:
        """Nothing is kept."""
        del job_id
        self._refuse_when_closed()

    def clean(self, keep: AbstractSet[str], *, journals: bool = False) -> Cleaned:
        """Nothing is left behind."""
        del keep, journals
        self._refuse_when_closed()
        return Cleaned(files=0, bytes=0)

    def close(self) -> None:
        """Refuse everything from here on."""
        self._closed = True

    def _finished(
        self, verb: str, job: MeasureJob, entry: JobItem, done: int, on_event: EventSink
    ) -> None:
        """Tell that `entry`, item number `done` of `job`, is over."""
        on_event(
            Event(
                f"{verb} {self._name}",
                done=done,
                total=len(job.items),
                data={"event": "finished", "item": entry.item, "job": job.id},
            )
        )
