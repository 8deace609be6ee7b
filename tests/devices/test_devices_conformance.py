from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.devices import DeviceSession, JobItem, open_session
from hwnas_sdk.devices.jobs import MeasureJob
from hwnas_sdk.simulators.workload import ArrayWork
from hwnas_sdk.simulators.zigzag_engine import ArrayCost, ZigZagEngine
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.device import TINY, DeviceConformance


class TestFake(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _files(self, make_artifact) -> None:
        self._make = make_artifact

    def open(self) -> DeviceSession:
        return open_session("fake:")

    def items(self, n: int) -> Sequence[JobItem]:
        return [JobItem(f"i{k}", f"test:{k}", f"net{k}", self._make(f"n{k}")) for k in range(n)]


class TestReplay(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _table(self, tmp_path: Path) -> None:
        self._path = tmp_path / "table.parquet"
        pq.write_table(
            pa.table({"arch": [f"net{k}" for k in range(5)], "pi4": [1.0, 2.0, 3.0, 4.0, 5.0]}),
            self._path,
        )

    def open(self) -> DeviceSession:
        return open_session(f"replay://{self._path}#pi4")

    def items(self, n: int) -> Sequence[JobItem]:
        return [JobItem(f"i{k}", f"test:{k}", f"net{k}", None) for k in range(n)]


class TestSimulator(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _engine(self, monkeypatch) -> None:
        """The engine takes seconds per network; a cycle per multiply-accumulate does not."""
        monkeypatch.setattr(ZigZagEngine, "evaluate", lambda _self, work: one_cycle_each(work))

    def open(self) -> DeviceSession:
        return open_session("sim://eyeriss")

    def items(self, n: int) -> Sequence[JobItem]:
        space = get_space("nasbench201")
        return [
            JobItem(f"i{k}", arch.id, space.encode(arch), None)
            for k, arch in enumerate(space.sample(n, seed=0))
        ]

    def job(self, name: str, n: int = 2, extra: Sequence[JobItem] = ()) -> MeasureJob:
        return MeasureJob(name, (*self.items(n), *extra), TINY, None, seed=1)

    def test_a_record_says_what_it_is(self) -> None:
        with self.open() as session:
            job = self.job("simulated")
            record = self.records(session, job, session.measure(job))[0]
        assert record.origin == "simulated"
        assert record.energy_mj is not None
        said = record.details["simulation"]
        assert said["pooling"] == "modelled"
        assert said["engine"] == "zigzag-dse"
        assert said["layers"]["conv"]["kind"] == "engine"
        assert {row["kind"] for row in said["layers"].values()} <= {"engine", "modelled", "free"}


def one_cycle_each(work: ArrayWork) -> ArrayCost:
    macs = float(work.macs)
    return ArrayCost(
        cycles=macs, compute_cycles=macs, energy_pj=10 * macs, outer_energy_pj=macs,
        outer_bytes=2.0, unrolling="none", n_mappings=1,
    )  # fmt: skip
