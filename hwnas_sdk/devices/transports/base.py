"""What a transport offers: put files on the board, start the agent, talk to its pipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hwnas_sdk.core.clock import Deadline

_SUFFIXES = frozenset({".onnx", ".so", ".tflite"})


def artifact_name(source: Path, sha256: str) -> str:
    """Name of a pushed file: its hash, and the suffix that says what it is."""
    return f"{sha256}{source.suffix if source.suffix in _SUFFIXES else '.onnx'}"


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

    @property
    def link_lost(self) -> bool:
        """Whether the stream ended because the link did; the agent may go on."""
        return False

    @abstractmethod
    def error_tail(self) -> str:
        """The last lines the agent wrote to its standard error."""

    @abstractmethod
    def close(self, *, grace_s: float) -> None:
        """Close the pipes, wait `grace_s` for the agent to go, then end it. Safe to call twice."""

    def leave(self) -> None:
        """Close the pipes of a link that was lost; a remote agent is left to finish its job."""
        self.close(grace_s=0.0)


class Transport(ABC):
    """Access to one board's work folder and agent.

    Attributes:
        is_remote: whether the link can be lost while the board goes on. Such a board is told to
            expect a sign of life from the host, and a lost link is connected again.
    """

    is_remote: bool = False

    @abstractmethod
    def start(self) -> Channel:
        """Start the agent.

        Raises: DeviceError when it cannot be started.
        """

    def push_all(self, files: Sequence[tuple[Path, str]]) -> None:  # noqa: B027 - optional
        """Push many (source, sha256) in one go, where that is cheaper than one by one.

        A file that cannot be pushed is left out: `push` then says why.
        Raises: DeviceError when the link or the board fails.
        """

    def forget_pushed(self) -> None:  # noqa: B027 - optional
        """Look again what is on the board before the next push: something was removed there."""

    def close(self) -> None:  # noqa: B027 - optional
        """End the connection, if there is one. Safe to call twice; `start` connects anew."""

    @abstractmethod
    def push(self, source: Path, sha256: str) -> str:
        """Make the file `source` available to the agent; copied only when missing.

        Returns its path relative to the agent's work folder.
        Raises: DeviceError code "artifact_corrupt" when the content is not `sha256`,
        "artifact_missing" when there is no such file, "no_space" or "deploy_failed".
        """
