from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.devices import DeviceSession, JobItem, open_session
from hwnas_sdk.testing.device import DeviceConformance


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
