"""Time that can be replaced in tests, and deadlines that are handed down the call chain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What library code may know about time."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def now(self) -> datetime:
        """Wall-clock time in UTC, for labels only."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The real clock."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()

    def now(self) -> datetime:
        """Wall-clock time in UTC."""
        return datetime.now(UTC)

    def sleep(self, duration_s: float) -> None:
        """Wait."""
        time.sleep(max(0.0, duration_s))


SYSTEM_CLOCK: Clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock after which waiting is pointless."""

    at_s: float
    clock: Clock = SYSTEM_CLOCK

    @classmethod
    def after(cls, duration_s: float, *, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """Return the deadline `duration_s` from now."""
        return cls(clock.monotonic_s() + duration_s, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock.monotonic_s())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.clock.monotonic_s() >= self.at_s
