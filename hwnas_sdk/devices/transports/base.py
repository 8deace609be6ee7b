"""What a transport offers: put files on the board, start the agent, talk to its pipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from pathlib import Path

from hwnas_sdk.core.clock import Deadline


class Channel(ABC):
    """The pipes of one running agent."""

    @abstractmethod
    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`.

        Raises: BrokenPipeError when nobody reads any more, TimeoutError at the deadline.
        """

    @abstractmethod
    def read_line(self, limit_bytes: int) -> bytes:
        """Block until one line is complete; at most `limit_bytes`; b"" at the end of the stream."""

    @abstractmethod
    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Exit status of the agent, negative for a signal; None while it runs or when unknown."""

    @abstractmethod
    def error_tail(self) -> str:
        """The last lines the agent wrote to its standard error."""

    @abstractmethod
    def close(self, *, grace_s: float) -> None:
        """Close the pipes, wait `grace_s` for the agent to go, then end it. Safe to call twice."""


class Transport(ABC):
    """Access to one board's work folder and agent."""

    @abstractmethod
    def start(self) -> Channel:
        """Start the agent.

        Raises: DeviceError when it cannot be started.
        """

    @abstractmethod
    def push(self, source: Path, sha256: str) -> str:
        """Make the file `source` available to the agent; copied only when missing.

        Returns its path relative to the agent's work folder.
        Raises: DeviceError code "artifact_corrupt" when the content is not `sha256`,
        "artifact_missing" when there is no such file, "no_space" or "deploy_failed".
        """

    @abstractmethod
    def clean(self, keep: AbstractSet[str]) -> int:
        """Remove pushed files whose hash is not in `keep`; returns how many went."""
