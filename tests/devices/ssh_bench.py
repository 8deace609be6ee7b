"""A trusted board over SSH whose agent is the fake one, and what can be done to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from ssh_server import agents_of

from hwnas_sdk.devices import drivers
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.drivers.ssh import open_shell
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.devices.transports.remote import RemoteTransport

FAKE = Path(drivers.__file__).with_name("_fake_agent.py")


class Bench:
    """Opens sessions with the fake agent on a trusted board, and does it harm."""

    def __init__(self, board) -> None:
        self.board = board
        self.server = board.server
        self.said: list[str] = []
        # One file is uploaded; this board is this machine, so it can find the rest.
        self._agent = board.key_file.parent / "agent.py"
        self._agent.write_text(
            f"import runpy, sys\nsys.path.insert(0, {str(FAKE.parent)!r})\n"
            f"runpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
        )

    def open(self, mode: str = "ok", *, port: int | None = None, **timeouts: float) -> AgentSession:
        transport = RemoteTransport(
            open_shell(self.board.uri(port=port), name="board"),
            work=str(self.board.work),
            python=sys.executable,
            agent=self._agent,
            agent_options=["--mode", mode],
        )
        return AgentSession(
            transport,
            name="board",
            uri=self.board.text(port=port),
            owner=owner_id(),
            origin="simulated",
            timeouts=Timeouts(**timeouts),
            governor="performance",
        )

    def go(self) -> None:
        """Let an agent that holds go on."""
        (self.board.work / "go").touch()

    def agents(self) -> list[int]:
        return agents_of(self.board.work)

    def kill_agents(self) -> None:
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def journal(self, job_id: str) -> Path:
        return self.board.work / "journal" / f"{job_id}.jsonl"

    def when(self, seq: int, act):
        """An event sink that calls `act` when the board waits before event `seq`."""
        count = 0

        def on_event(event) -> None:
            nonlocal count
            if event.message:
                self.said.append(event.message)
            if event.data.get("event"):
                count += 1
                if count == seq - 1:
                    act()

        return on_event


def samples(result):
    """All numbers of a result; those of the fake depend on the job only."""
    return [
        (entry.item, entry.error_code, [block.samples_ns.tolist() for block in entry.blocks])
        for entry in result.items
    ]


def undisturbed(bench, job):
    with bench.open() as session:
        result = session.measure(replace(job, id="undisturbed"))
        session.forget("undisturbed")
    return samples(result)
