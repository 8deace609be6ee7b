from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_records import fresh

from hwnas_sdk.store.sqlite import MeasurementStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with fresh(tmp_path / "store.sqlite") as opened:
        yield opened
