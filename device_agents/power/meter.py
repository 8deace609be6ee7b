"""An energy meter: a counter that never raises, and what is known of its readings."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator


class SensorError(Exception):
    """The sensor says something impossible. Attributes: code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Marks:
    """What a meter had seen at one moment.

    Attributes:
        updates: fresh readings so far.
        changes: those that were not zero and differed from the one before; None for counters.
        gaps: readings that came more than five periods late.
        power_sum_uw: of the fresh readings; None for counters.
    """

    def __init__(
        self, updates: int, changes: int | None, gaps: int, power_sum_uw: float | None
    ) -> None:
        self.updates = updates
        self.changes = changes
        self.gaps = gaps
        self.power_sum_uw = power_sum_uw


class Meter:
    """Call it for microjoules since it was opened; never raises, see `fault`.

    Attributes:
        period_s: time between fresh readings.
        fault: (code, sentence) once the sensor failed.
        loop: marks around the last energy loop.
    """

    settle_s = 0.0
    """How long a change of power takes to be in the readings alone."""

    def __init__(self, open_it: Callable[[], Callable[[], int]], found: dict[str, Any]) -> None:
        self._last_uj = 0
        self._begin_s = time.monotonic()
        self.period_s = float(found["period_s"])
        self.fault = None  # type: tuple[str, str] | None
        self.loop = (Marks(0, None, 0, None),) * 2
        self._read_uj = lambda: 0  # type: Callable[[], int]
        with self._noting_faults():
            self._read_uj = open_it()

    def __call__(self) -> int:
        """Microjoules since it was opened; the last ones once the sensor failed."""
        with self._noting_faults():
            self._last_uj = self._read()
        return self._last_uj

    def _read(self) -> int:
        return self._read_uj()

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except SensorError as exc:
            self.fault = self.fault or (exc.code, str(exc))
        except (OSError, ValueError, LookupError) as exc:
            self.fault = self.fault or ("sensor_failed", str(exc))

    def marks(self) -> Marks:
        """What has been seen so far. A counter's updates are those its period promises."""
        return Marks(int((time.monotonic() - self._begin_s) / self.period_s), None, 0, None)

    def facts(self) -> dict[str, Any]:
        """What a record keeps of this meter."""
        return {"period_s": self.period_s}

    def measure_overhead(self) -> None:
        """Find out what the polling itself uses; nothing to do for a counter."""
