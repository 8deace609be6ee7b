"""A board without Python for tests: a home folder, this machine's `sh`, test runners."""

from __future__ import annotations

import hashlib
from pathlib import Path

from local_board import LocalShell, board_processes

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.command_runners import find_runner
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.testing.device import TINY

RUNNERS = Path(__file__).parent / "runners"
PERF_TEST = RUNNERS / "test_onnxruntime_perf_test"
BENCHMARK_MODEL = RUNNERS / "test_benchmark_model"


class Rig:
    """A home folder that stands for the board, and files for it."""

    def __init__(self, folder: Path, program: Path = PERF_TEST) -> None:
        self.folder = folder
        self.program = program
        self.runner = find_runner(program.name)
        (folder / "board").mkdir()

    @property
    def work(self) -> Path:
        return self.folder / "board" / "hwnas"

    def runs(self) -> list[int]:
        """What runs on the board."""
        return board_processes(self.folder / "board")

    def open(self, *, owner: str = "tester", **options) -> CommandSession:
        return CommandSession(
            LocalShell(self.folder / "board"),
            name="shelf",
            uri="adb://SERIAL",
            owner=owner,
            work="$HOME/hwnas",
            program=self.program,
            runner=self.runner,
            **options,
        )

    def item(self, name: str, head: str = "network") -> JobItem:
        content = f"{head} {name}".encode() * 300
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{name}{self.runner.suffix}"
        path.write_bytes(content)
        artifact = Artifact(
            sha256=sha256,
            format=self.runner.suffix[1:],
            arch_id=f"test:{name}",
            folded=False,
            producer="test",
            size_bytes=len(content),
            path=str(path),
        )
        return JobItem(name, artifact.arch_id, name, artifact)

    def job(self, name: str, *items: JobItem, seed: int = 1, **changes) -> MeasureJob:
        fields = {"settings": TINY, "sentinel": self.item("sentinel").artifact, **changes}
        return MeasureJob(name, items or (self.item("a"), self.item("b")), seed=seed, **fields)


def records_of(session: CommandSession, job: MeasureJob, result) -> dict:
    pairs = measurements_of(
        job,
        result,
        spec=session.spec,
        origin=session.origin,
        baseline_sentinel_ms=None,
        run_id="r",
        attempt_of=lambda _item: 1,
    )
    return {measurement.item: measurement for measurement, _ in pairs}
