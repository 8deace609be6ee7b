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
OPTIONS = ["--models", "flops,linear-transfer", "--train-devices", "a,b", "--devices", "c,d",
           "--energy-devices", "c,d", "--further-devices", "d"]  # fmt: skip


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
    # Energy is a power that differs between networks, times the latency.
    power_w = 2.0 + 0.3 * (genes == 2).sum(axis=1)
    energy = {f"{name}_energy_mj": power_w * columns[name] for name in "cd"}
    pq.write_table(
        pa.table({"index": index, "arch": arch, **energy}),
        folder / "nasbench201_hwnasbench_energy.parquet",
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
    further = page.split("## Further")[1].split("## Energy")[0]
    keys = [latency_table.Job("flops", "random", s, group="further").key for s in range(5)]
    taus = [answers[key]["devices"]["d"]["kendall"] for key in keys]
    assert len(set(taus)) > 1
    assert f"| `flops` | {np.mean(taus):.3f} ± {np.std(taus):.3f} |" in further
    assert set(answers[keys[0]]["devices"]) == {"d"}
    energy = page.split("## Energy")[1]
    for title, leave_one_out in (("latencies of", False), ("energies of", True)):
        job = latency_table.Job("flops", "ours", leave_one_out=leave_one_out, group="energy")
        answer = answers[job.key]
        assert answer["train_metric"] == title.split()[0].replace("ies", "y")
        expected = answer["devices"]["d"]["kendall"]
        table = energy.split(f"Known: {title}")[1]
        row = next(line for line in table.splitlines() if line.startswith("| `flops`"))
        assert row.split(" | ")[6] == f"{expected:.3f}"
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


def test_a_model_that_needs_others_beside_the_papers_references_has_no_row_of_them():
    wanted = list(latency_table.jobs(["flops", "help-paper"]))
    assert latency_table.Job("help-paper", "paper") not in wanted
    assert latency_table.Job("flops", "paper") in wanted
    figures = {"n": 9, "n_tied_pairs": 0, "kendall_ceiling": 1.0, "kendall_retest": None,
               "spearman": 0.5, "kendall": 0.4, "kendall_rounded": None, "median_ape_pct": 7.0,
               "coverage90": None}  # fmt: skip
    answer = {"devices": {"c": figures}, "mean_spearman": 0.5, "mean_kendall": 0.4}
    asked = {"known": ["a"], "unseen": ["c"], "energy": [], "further": [], "samples": 10}
    key = latency_table.Job("help-paper", "ours").key
    page = latency_table.page(["help-paper"], asked, {key: answer})
    ours, paper = page.split("## References: ours")[1].split("## References: paper")
    assert "| `help-paper` | 0.500 |" in ours
    assert "`help-paper`" not in paper
    assert "Not run yet" not in page


def test_a_page_of_half_the_runs_says_so(tables, tmp_path):
    out, state = tmp_path / "page.md", tmp_path / "state.json"
    command = ["--data", str(tables), *OPTIONS, "--out", str(out), "--state", str(state)]
    latency_table.main(command)
    assert "Not run" not in out.read_text()
    kept = json.loads(state.read_text())
    del kept["answers"][latency_table.Job("flops", "paper").key]
    del kept["answers"][latency_table.Job("flops", "random", 3).key]
    state.write_text(json.dumps(kept))
    del kept["answers"][latency_table.Job("flops", "ours", group="energy").key]
    state.write_text(json.dumps(kept))
    latency_table.main([*command, "--page-only"])
    assert "`flops` energy from latencies" in out.read_text()
    latency_table.main([*command, "--page-only"])
    assert "`flops` paper, `flops` random" in out.read_text()


def test_energy_and_further_devices_can_be_left_out(tables, tmp_path):
    out, state = tmp_path / "page.md", tmp_path / "state.json"
    neither = ["--energy-devices", "", "--further-devices", ""]
    command = ["--data", str(tables), *OPTIONS, *neither, "--out", str(out), "--state", str(state)]
    latency_table.main(command)
    assert "## Energy" not in out.read_text()
    assert "## Further" not in out.read_text()
