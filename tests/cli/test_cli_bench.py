"""`hwnas bench` on the public tables: the document of the contract, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas_sdk.cli import bench_latency_cmd, bench_search_cmd
from hwnas_sdk.cli.main import main
from hwnas_sdk.workflows import bench_latency, bench_search

Capture = pytest.CaptureFixture[str]
FAST = ["--model", "flops", "--references", "random"]


def _json(capsys: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == exit_code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_choices_are_those_of_the_benches() -> None:
    assert bench_latency_cmd.REFERENCES == bench_latency.REFERENCES
    assert bench_search_cmd.METHODS == bench_search.METHODS
    assert bench_search_cmd.REFERENCES == bench_search.REFERENCES


def test_the_default_split_is_that_of_the_literature(shared_data: Path) -> None:
    splits = json.loads((shared_data / "help_splits.json").read_text())["nasbench201"]
    known = {*splits["meta_train_devices"], *splits["meta_valid_devices"]}
    assert set(bench_search.HELP_TRAIN_DEVICES) == known
    assert set(bench_search.HELP_UNSEEN_DEVICES) == set(splits["meta_test_devices"])


def test_latency(shared_data: Path, capsys: Capture) -> None:
    answer = _json(
        capsys, "bench", "latency", "--data", str(shared_data), "--devices", "raspi4,fpga", *FAST
    )
    assert set(answer["devices"]) == {"raspi4", "fpga"}
    for figures in answer["devices"].values():
        assert figures.keys() >= {
            "spearman",
            "kendall",
            "kendall_ceiling",
            "mape_pct",
            "median_ape_pct",
            "coverage90",
            "n",
        }
        assert 0.5 < figures["spearman"] <= 1
    assert answer.keys() >= {
        "mean_spearman",
        "mean_kendall",
        "model",
        "fit_seconds",
        "adapt_seconds",
    }
    assert main(["bench", "latency", "--data", str(shared_data), "--devices", "fpga", *FAST]) == 0
    assert "fpga" in capsys.readouterr().out


def test_search(shared_data: Path, capsys: Capture) -> None:
    arguments = ["--devices", "raspi4", "--method", "random", "--seeds", "1", "--candidates", "8"]
    arguments += ["--train-devices", "pixel3,fpga"]
    answer = _json(capsys, "bench", "search", "--data", str(shared_data), *arguments)
    figures = answer["devices"]["raspi4"]
    assert figures.keys() >= {
        "hv",
        "hv_true",
        "normalized_hv",
        "normalized_hv_sd",
        "gd_plus",
        "igd_plus",
        "n_distinct",
        "search_seconds",
    }
    assert 0.3 < figures["normalized_hv"] <= 1
    assert answer["mean_normalized_hv"] == pytest.approx(figures["normalized_hv"])


@pytest.mark.parametrize("verb", ["latency", "search"])
@pytest.mark.parametrize(
    ("arguments", "exit_code", "word"),
    [
        (["--devices", "toaster"], 3, "toaster"),
        (["--devices", "pixel3"], 3, "pixel3"),  # a training device
        (["--devices", "raspi4,,fpga"], 2, "empty name"),
        (["--devices", "raspi4,raspi4"], 2, "twice"),
        (["--samples", "0"], 2, "--samples"),
    ],
)
def test_bad_options(
    verb: str, arguments: list[str], exit_code: int, word: str, shared_data: Path, capsys: Capture
) -> None:
    assert main(["bench", verb, "--data", str(shared_data), *arguments]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert word in captured.err


@pytest.mark.parametrize("verb", ["latency", "search"])
def test_a_missing_table_is_named(verb: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", verb, "--data", str(tmp_path)]) == 6
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert ".parquet" in err
    assert main(["bench", verb]) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "work"),
    [("latency", "bench_latency.run_bench_latency"), ("search", "bench_search.run_bench_search")],
)
def test_an_interrupted_bench_says_that_it_starts_over(
    verb: str,
    work: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hwnas_sdk.workflows.{work}", interrupted)
    assert main(["bench", verb, "--data", str(tmp_path)]) == 75
    assert capsys.readouterr().err == "interrupted; the same command starts over\n"
