"""Boards for the soak test: how to reach them, what can be done to them, what runs on them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Fault = Callable[[random.Random], bool]
"""Does something bad, for as long as it lasts; whether there was anything to do it to."""


@dataclass(frozen=True)
class AgentProcess:
    """An agent, or its worker, on a board; `pid` is the host's."""

    pid: int
    is_worker: bool
    command: str

    @classmethod
    def of(cls, pid: int, command: str) -> AgentProcess | None:
        """The agent with this command line; None for anything else."""
        if "hwnas-agent" not in command or ".pyz" not in command:
            return None
        return cls(pid, "--worker" in command.split(), command)


class Rig(ABC):
    """One board and the names hosts know it by.

    Attributes:
        name: for the report.
        devices: transport -> (device name, URI or "" when the name needs no adding).
        is_emulated: whether inference there takes hundreds of times too long.
    """

    name: str
    devices: Mapping[str, tuple[str, str]]
    is_emulated: bool = False

    @abstractmethod
    def agents(self) -> list[AgentProcess]:
        """What of ours runs on the board now."""

    @abstractmethod
    def journal_folders(self) -> list[Path]:
        """Where its agents keep their journals, seen from here; they need not exist yet."""

    @abstractmethod
    def faults(self) -> dict[str, Fault]:
        """What can be done to the board, by name."""

    def environ(self) -> dict[str, str]:
        """Environment of the commands that use the board."""
        return {}

    def boot(self) -> str:
        """What the clock of the board counts from."""
        return ""

    def governors(self) -> list[str]:
        """The clock governor of each core; empty where there is none."""
        return []

    def prepare(self, home: Path) -> None:  # noqa: B027 - optional
        """Make a host's data folder ready, before its first command."""

    def stop(self) -> None:  # noqa: B027 - optional
        """End the board."""

    def kill_agents(self, *, workers: bool) -> bool:
        """Kill the supervisors, or only their workers; whether there were any."""
        victims = [agent for agent in self.agents() if agent.is_worker == workers]
        for agent in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(agent.pid, signal.SIGKILL)
        return bool(victims)

    def agent_faults(self) -> dict[str, Fault]:
        """The faults every board has."""
        return {
            "agent killed": lambda _rng: self.kill_agents(workers=False),
            "worker killed": lambda _rng: self.kill_agents(workers=True),
        }


class LocalRig(Rig):
    """This machine as the board; the rehearsal of the tool itself."""

    def __init__(self, root: Path) -> None:
        """Hosts keep their data below `root`."""
        self.name = "local"
        self.devices = {"local": ("local", "")}
        self._root = root
        (root / "lease").mkdir(exist_ok=True)

    def agents(self) -> list[AgentProcess]:
        """Agents whose work folder is below our root."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    agent = AgentProcess.of(int(entry.name), " ".join(words))
                    if agent is not None and str(self._root) in agent.command:
                        found.append(agent)
        return found

    def journal_folders(self) -> list[Path]:
        """One for each host: they share the board, not the folder."""
        return list(self._root.glob("host*/boards/local/journal"))

    def faults(self) -> dict[str, Fault]:
        """Only what does not need a board of its own."""
        return self.agent_faults()

    def environ(self) -> dict[str, str]:
        """A lease of our own: nobody else's work is to wait for ours."""
        return {"HWNAS_LEASE_DIR": str(self._root / "lease")}


class EmulatedRig(Rig):
    """An emulated board (tools/qemu_board), over SSH, ADB or both."""

    is_emulated = True

    def __init__(self, transports: list[str], adb: Any = None) -> None:
        """Boot a board; `adb` is the `AdbServer` to reach it with."""
        from qemu_board import Board

        self._board = Board(adb="adb" in transports, ready=True, cpufreq=True)
        self._board.start()
        self._adb = adb
        self.name = f"board{self._board.number}"
        uris = {"ssh": self._board.ssh_uri, "adb": self._board.adb_uri}
        self.devices = {way: (f"{self.name}-{way}", uris[way]) for way in transports}
        self._board.set_clock(0)  # processes from now on follow later changes
        self._upper = self._board.folder / "disk" / "upper"
        if adb is not None:
            adb.connect(self._board.adb_serial)

    def agents(self) -> list[AgentProcess]:
        """Agents among the board's processes."""
        found = [AgentProcess.of(p.host_pid, p.command) for p in self._board.processes()]
        return [agent for agent in found if agent is not None]

    def journal_folders(self) -> list[Path]:
        """Both transports have a folder of their own on the board."""
        places = ("home/pi/.local/share/hwnas/journal", "data/local/tmp/hwnas/journal")
        return [self._upper / place for place in places]

    def environ(self) -> dict[str, str]:
        """Where our own adb server listens."""
        return {} if self._adb is None else dict(self._adb.environ)

    def boot(self) -> str:
        """The board's boot id."""
        try:
            return (self._board.folder / "boot_id").read_text().strip()
        except OSError:
            return ""

    def governors(self) -> list[str]:
        """Of the stand-in."""
        return self._board.governors()

    def prepare(self, home: Path) -> None:
        """Pin the board's host key, as `hwnas devices trust` does after showing it."""
        with (home / "known_hosts").open("a") as stream:
            stream.write(self._board.known_hosts.read_text())

    def faults(self) -> dict[str, Fault]:
        """Link, daemons, power, disk, clock, agents."""
        daemons = {"ssh": ("sshd killed", "sshd"), "adb": ("adbd killed", "adbd")}
        return self.agent_faults() | {
            "link cut": self._cut_link,
            "board killed": self._cut_power,
            "disk full": self._fill_disk,
            "wrong clock": self._shift_clock,
        } | {
            daemons[way][0]: lambda _rng, what=daemons[way][1]: self._board.kill(what) > 0
            for way in self.devices
        }  # fmt: skip

    def stop(self) -> None:
        """Remove the board."""
        self._board.stop()

    def _cut_link(self, rng: random.Random) -> bool:
        self._board.link_down()
        try:
            time.sleep(rng.uniform(1.0, 40.0))
        finally:
            self._board.link_up()
        return True

    def _cut_power(self, rng: random.Random) -> bool:
        self._board.power_off()
        time.sleep(rng.uniform(0.2, 5.0))
        self._board.power_on()
        return True

    def _fill_disk(self, rng: random.Random) -> bool:
        self._board.fill_disk()
        try:
            time.sleep(rng.uniform(1.0, 15.0))
        finally:
            self._board.free_disk()
        return True

    def _shift_clock(self, rng: random.Random) -> bool:
        """A board without a battery wakes in the past; it stays wrong until the next time."""
        year_s = 365 * 86400
        self._board.set_clock(rng.choice([-30 * year_s, -3600, 0, 3600, 5 * year_s]))
        return True


def make_rigs(transport: str, boards: int, root: Path, stack: contextlib.ExitStack) -> list[Rig]:
    """Boot what `--transport` and `--boards` ask for; `stack` ends it.

    Raises: SystemExit with the reason when there can be no board here.
    """
    if transport == "local":
        return [LocalRig(root)]
    from qemu_board import AdbServer, is_built, unavailable

    reason = unavailable()
    if reason:
        raise SystemExit(f"no emulated board: {reason}")
    if not is_built():
        raise SystemExit("the emulated board is not built: python tools/qemu_board build")
    ways = ["ssh", "adb"] if transport == "both" else [transport]
    adb = None
    if "adb" in ways:
        folder = root / "adb"
        folder.mkdir(exist_ok=True)
        adb = stack.enter_context(AdbServer(folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    rigs: list[Rig] = []
    for _ in range(boards):
        rig = EmulatedRig(ways, adb)
        stack.callback(rig.stop)
        rigs.append(rig)
    return rigs
