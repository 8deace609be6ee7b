"""Progress events: long work reports, somebody else decides how it looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a long piece of work.

    Attributes:
        task: what is going on, the same text for all steps of one task ("measure local").
        done: steps finished so far.
        total: steps in all, or None where nobody knows.
        message: one line for a person; may be empty.
        data: values for a machine.
    """

    task: str
    done: int = 0
    total: int | None = None
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop an event; the default sink."""
    del event
