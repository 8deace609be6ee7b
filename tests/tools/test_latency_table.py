"""The page of all models: made from the bench, resumable, nothing left out."""

from __future__ import annotations

import json

import latency_table
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.predictors.references import PAPER_INDICES
from hwnas_sdk.predictors.registry import model_names
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.predictor import invented_values

SPACE = NasBench201()
OPTIONS = ["--models", "flops,linear-transfer", "--train-devices", "a,b", "--devices", "c,d"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    index = np.unique([*range(0, 15_000, 60), *PAPER_INDICES])
    genes = SPACE.all_genotypes()[index]
    cells = [SPACE.architecture(cell) for cell in genes]
    arch = [SPACE.encode(cell) for cell in cells]
    accuracy = [10.0 if SPACE.is_dead(cell) else 91.0 for cell in cells]
    pq.write_table(
        pa.table({"index": index, "arch": arch, "cifar10_test_acc": accuracy}),
        folder / "nasbench201.parquet",
    )
    columns = {name: invented_values(genes, i) for i, name in enumerate("abcd")}
    pq.write_table(
        pa.table({"index": index, "arch": arch, **columns}), folder / "nasbench201_latency.parquet"
    )
    return folder


def test_the_page_holds_what_the_bench_says_and_a_second_run_asks_nothing(
    tables, tmp_path, monkeypatch
):
    out, state = tmp_path / "page.md", tmp_path / "state.json"
    command = ["--data", str(tables), *OPTIONS, "--out", str(out), "--state", str(state)]
    assert latency_table.main(command) == 0
    page = out.read_text()
    answers = json.loads(state.read_text())["answers"]
    for name in ("flops", "linear-transfer"):
        job = latency_table.Job(name, "ours")
        expected = answers[job.key]["devices"]["c"]["spearman"]
        row = next(
            line
            for line in page.split("References: ours")[1].split("Spearman:")[1].splitlines()
            if line.startswith(f"| `{name}`")
        )
        assert row.split(" | ")[1] == f"{expected:.3f}"
    assert "±" in page
    assert "known, left out" in page
    monkeypatch.setattr(latency_table, "run_bench_latency", pytest.fail)
    out.unlink()
    assert latency_table.main(command) == 0
    assert out.read_text() == page
    with pytest.raises(SystemExit, match="another question"):
        latency_table.main([*command, "--samples", "9"])


def test_every_registered_model_has_its_runs():
    asked = {job.model for job in latency_table.jobs(model_names())}
    assert asked == set(model_names())
    assert set(model_names()) >= latency_table.CHEAP
