"""The pipes of an agent on a remote board, and ending it there when it does not end by itself."""

from __future__ import annotations

import logging
from typing import Final

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.base import Channel
from hwnas_sdk.devices.transports.shell import BoardShell

_LOG = logging.getLogger(__name__)

PID_LINE: Final = "hwnas-agent-pid"
_KILL_S: Final = 15.0

# The process is ours only while it runs our agent: numbers are used again.
_KILL = """
p=%(pid)d
mine() { tr '\\0' ' ' </proc/$p/cmdline 2>/dev/null | grep -q hwnas-agent-; }
mine || exit 0
kill -TERM $p 2>/dev/null
pause() { sleep 0.2 2>/dev/null || sleep 1; }
for i in 1 2 3 4 5 6 7 8; do pause; mine || exit 0; done
kill -KILL -$p 2>/dev/null || kill -KILL $p 2>/dev/null
for i in 1 2 3 4 5 6 7 8; do mine || exit 0; pause; done
exit 1
"""


class AgentChannel(Channel):
    """An agent's pipes over another channel, whose first line is the agent's process id.

    Ending the connection leaves the agent running, so `close` ends an agent that stays, as long
    as the link still stands. When the link is lost the agent is left alone: it may be finishing
    a job.
    """

    def __init__(self, inner: Channel, shell: BoardShell) -> None:
        self._inner = inner
        self._shell = shell
        self.pid: int | None = None

    def send(self, data: bytes, *, deadline: Deadline) -> None:
        """Write all of `data`; see `Channel.send`."""
        self._inner.send(data, deadline=deadline)

    def read_line(self, limit_bytes: int) -> bytes:
        """One line of the agent; see `Channel.read_line`."""
        line = self._inner.read_line(limit_bytes)
        if self.pid is None and line.startswith(PID_LINE.encode()):
            number = line.split()[-1]
            self.pid = int(number) if number.isdigit() and len(number) < 10 else -1
            line = self._inner.read_line(limit_bytes)
        return line

    @property
    def link_lost(self) -> bool:
        """Whether the stream ended because the connection did."""
        return self._inner.link_lost

    def exit_status(self, *, wait_s: float = 0.0) -> int | None:
        """Exit status of the agent; None while it runs or when unknown."""
        return self._inner.exit_status(wait_s=wait_s)

    def error_tail(self) -> str:
        """The last lines of the agent's standard error."""
        return self._inner.error_tail()

    def leave(self) -> None:
        """Close the pipes only."""
        self._inner.close(grace_s=0.0)

    def close(self, *, grace_s: float) -> None:
        """Close the input, wait, then end the agent on the board."""
        self._inner.close(grace_s=grace_s)
        if self.pid is None or self.pid <= 1 or self._inner.link_lost:
            return
        if self._inner.exit_status() is not None:
            return
        _LOG.info("the agent on %s (pid %d) did not say goodbye", self._shell.device_id, self.pid)
        try:
            done = self._shell.run(_KILL % {"pid": self.pid}, timeout_s=_KILL_S)
        except DeviceError as exc:
            _LOG.info("ending the agent on %s: %s", self._shell.device_id, exc)
            return
        if done.status != 0:
            _LOG.warning("the agent on %s (pid %d) is still there", self._shell.device_id, self.pid)
