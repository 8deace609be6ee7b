"""A session with one device: what every device can be asked, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.types import DeviceSpec, Origin
from hwnas_sdk.devices.jobs import JobResult, MeasureJob


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `DeviceSession.clean` took away."""

    files: int
    bytes: int


class DeviceSession(ABC):
    """An open connection to one device.

    Attributes:
        spec: what the device is; ``spec.id`` is ``<name>@<fingerprint8>``.
        origin: where its numbers come from; copied into every measurement.
        needs_artifacts: whether a job's items need a file (a table needs only the string).

    `hwnas_sdk.testing.device.DeviceConformance` says as tests what an implementation must do.
    """

    spec: DeviceSpec
    origin: Origin
    needs_artifacts: bool
    _name: str
    _closed: bool

    @abstractmethod
    def probe(self) -> dict[str, Any]:
        """Look at the device again: plain JSON with device, environment, runtimes, power, quiet.

        Raises: DeviceError when it does not answer.
        """

    @abstractmethod
    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Measure all items of `job`; a bad item fails alone, the others are measured.

        Blocks until the job is over. An interrupt (Ctrl-C) cancels the job on the device and goes
        on to the caller; what was finished can still be had with `recover`.
        Raises: DeviceError when the device is lost or busy.
        """

    @abstractmethod
    def recover(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult | None:
        """Return the result of a job an earlier session started, waiting while it still runs.

        None when nothing of it was measured: the device does not know it, or it was cancelled
        before its first item was finished.
        Raises: DeviceError as in `measure`.
        """

    @abstractmethod
    def forget(self, job_id: str) -> None:
        """Let the device delete what it keeps for `recover`; call once the results are stored."""

    @abstractmethod
    def clean(self, keep: AbstractSet[str], *, journals: bool = False) -> Cleaned:
        """Remove what nobody needs from the device: leftovers, files whose hash is not in `keep`.

        With `journals`, also those of finished jobs nobody has fetched.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the device back. Safe to call twice; every other call then raises."""

    def _refuse_when_closed(self) -> None:
        """First line of whatever needs the device. Raises: DeviceError (``session_closed``)."""
        if self._closed:
            raise DeviceError(
                f"the session with {self._name!r} is closed",
                device_id=self._name,
                code="session_closed",
                hint="open a new one",
            )

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
