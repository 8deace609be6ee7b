"""The conformance suite of devices, on the emulated board, over SSH and over ADB."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from integration_host import Reached
from integration_models import convolution

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices import DeviceSession, JobItem, open_session
from hwnas_sdk.devices.jobs import MeasureJob
from hwnas_sdk.testing.device import TINY, DeviceConformance
from hwnas_sdk.workflows.reference import expected_output

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def items(folder: Path, n: int) -> list[JobItem]:
    """Return `n` different networks with what this host computes for them."""
    found = []
    for k in range(n):
        path = convolution(folder / f"{k}.onnx", seed=7000 + k)
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        artifact = Artifact(
            sha256=sha256,
            format="onnx",
            arch_id=f"file:{sha256[:12]}",
            folded=False,
            producer="test",
            size_bytes=len(data),
            path=str(path),
        )
        found.append(
            JobItem(f"i{k}", artifact.arch_id, f"net{k}", artifact, expected_output(artifact))
        )
    return found


class OnTheBoard(DeviceConformance):
    """Opens the board as its host does."""

    _name: str
    _folder: Path

    def open(self) -> DeviceSession:
        return open_session(self._name)

    def items(self, n: int) -> Sequence[JobItem]:
        return items(self._folder, n)

    def _use(self, reached: Reached, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._name = reached.name
        self._folder = folder
        reached.host.become(monkeypatch)


class TestOverSsh(OnTheBoard):
    @pytest.fixture(autouse=True)
    def _board(self, by_ssh: Reached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._use(by_ssh, monkeypatch, tmp_path)


class TestOverAdb(OnTheBoard):
    @pytest.fixture(autouse=True)
    def _board(self, by_adb: Reached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._use(by_adb, monkeypatch, tmp_path)


def test_twenty_networks_travel_in_one_go_at_little_cost(
    reached: Reached,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    figures: dict[str, str],
) -> None:
    """One connection, one push; overhead is wall time of a job minus the board's own."""
    reached.host.become(monkeypatch)
    board = reached.board
    networks = tuple(items(tmp_path, 21))
    first, rest = networks[:1], networks[1:]
    name = f"overhead-{time.time_ns()}"
    logins = board.ssh_logins()
    with open_session(reached.name) as session:
        # Imports the runtime on the board, whose time is not the link's.
        session.measure(MeasureJob(f"{name}-first", first, TINY, first[0].artifact, seed=1))
        commands = board.ssh_commands()
        began_s = time.monotonic()
        job = MeasureJob(name, rest, TINY, first[0].artifact, seed=1)
        result = session.measure(job)
        wall_s = time.monotonic() - began_s
        commands = board.ssh_commands() - commands
        for job_id in (f"{name}-first", name):
            session.forget(job_id)
    assert all(entry.error_code is None for entry in result.items)
    assert all(entry.facts["output_matches"] is True for entry in result.items)
    busy_s = result.warmup_s + result.timed_s + result.sentinel_s + result.load_s
    overhead_s = (wall_s - result.wall_s) / len(rest)
    figures[f"{reached.way}: overhead per measurement, push and link"] = (
        f"{overhead_s:.3f} s; with the agent's own work under emulation "
        f"{(wall_s - busy_s) / len(rest):.3f} s"
    )
    assert overhead_s < 0.5
    if reached.way == "ssh":
        figures["ssh: connections of a session, commands for 20 more networks"] = (
            f"{board.ssh_logins() - logins}, {commands}"
        )
        assert board.ssh_logins() - logins == 1
        assert commands <= 2
