"""`hwnas train meta` refuses before it trains; what it trains is judged in tests/cli and tools."""

from __future__ import annotations

import numpy as np
import pytest
from latency_bench_tables import column, make_tables, with_columns

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.workflows.train_meta import train_meta


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return make_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    meta = pytest.importorskip("hwnas_sdk.predictors.neural.meta")
    monkeypatch.setattr(meta.MetaPredictor, "fit", lambda *_, **__: pytest.fail("trained"))


def test_a_place_that_cannot_be_written(tables, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "model.safetensors", tmp_path):
        with pytest.raises(DataError, match="cannot write") as caught:
            train_meta([tables], output, train_devices=["a", "b"])
        assert caught.value.code == "not_writable"


def test_a_judged_device_without_references(tables, tmp_path):
    references = np.full(len(column(tables, "a")), np.nan)
    references[-3:] = (1.0, 2.0, 3.0)
    folder = tmp_path / "tables"
    folder.mkdir()
    with_columns(tables, folder, {"bare": references})
    output = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="bare: 0 measured reference networks") as caught:
        train_meta([folder], output, train_devices=["a", "b"], devices=["bare"])
    assert caught.value.code == "too_few_rows"
    assert not output.exists()
