"""`hwnas bench` on the public tables: the document of the contract, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas_sdk.cli import bench_latency_cmd, bench_rank_cmd, bench_search_cmd
from hwnas_sdk.cli.main import main
from hwnas_sdk.workflows import bench_latency, bench_search, latency_protocol, rank_protocol

Capture = pytest.CaptureFixture[str]
FAST = ["--model", "flops", "--references", "random"]


def _json(capsys: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == exit_code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_choices_are_those_of_the_benches() -> None:
    assert bench_latency_cmd.REFERENCES == latency_protocol.REFERENCES
    assert bench_search_cmd.METHODS == bench_search.METHODS
    assert bench_search_cmd.REFERENCES == bench_search.REFERENCES
    assert bench_rank_cmd.MODELS == rank_protocol.MODELS
    assert bench_rank_cmd.LOSSES == rank_protocol.LOSSES


def test_rank_options_become_a_plan(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from hwnas_sdk.workflows import bench_rank

    plans: list[Any] = []

    def run(data: Any, plan: Any, **options: Any) -> dict[str, Any]:
        plans.append((plan, options["curve"], options["batch_sizes"], options["losses"]))
        return {"devices": {"x": {"kendall": 0.5}}, "mean_kendall": 0.5}

    monkeypatch.setattr(bench_rank, "run_bench_rank", run)
    _json(capsys, "bench", "rank", "--data", ".")
    _json(capsys, "bench", "rank", "--data", ".", "--loss", "paper_eq8", "--batch-sizes", "8,18")
    _json(
        capsys, "bench", "rank", "--data", ".", "--devices", "a,b", "--against", "independent",
        "--objectives", "error,latency,energy", "--curve", "100,500", "--new-platform",
        "--losses", "listwise,efron",
    )  # fmt: skip
    first, second, third = plans
    assert first[0] == rank_protocol.RankBenchPlan()
    assert (second[0].model, second[0].loss, second[2]) == ("network", "paper_eq8", (8, 18))
    assert third[0].devices == ("a", "b")
    assert third[0].metrics == ("latency", "energy")
    assert third[0].independent
    assert third[0].new_platform
    assert third[1] == (100, 500)
    assert (first[3], third[3]) == ((), ("listwise", "efron"))
    arguments = ["bench", "rank", "--data", ".", "--model", "posterior", "--loss", "efron"]
    assert main(arguments) == 2
    assert "network" in capsys.readouterr().err
    assert main(["bench", "rank", "--data", ".", "--curve", "a,b"]) == 2
    assert main(["bench", "rank", "--data", "."]) == 0
    shown = capsys.readouterr().out
    assert "0.5" in shown
    assert "independent" not in shown


def test_rank_shows_new_functions_beside_all_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from hwnas_sdk.workflows import bench_rank

    def run(*arguments: Any, **options: Any) -> dict[str, Any]:
        other = {"kendall": 0.313, "kendall_new_families": 0.3}
        device = {"kendall": 0.515, "kendall_new_families": 0.414, "independent": other}
        return {"devices": {"x": device}, "independent": {"mean_kendall": 0.313}}

    monkeypatch.setattr(bench_rank, "run_bench_rank", run)
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["bench", "rank", "--data", ".", "--against", "independent"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if "device" in line)
    assert "kendall new families" in head
    assert "independent new families" in head
    row = next(line.split() for line in lines if line.split()[:1] == ["x"])
    assert [cell for cell in row if cell != "-"] == ["x", "0.515", "0.414", "0.313", "0.3"]


def test_train_rank(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> None:
    from hwnas_sdk.workflows import train_rank

    asked: list[tuple[str, str, str]] = []

    def run(data: Any, device: str, output: Path, **options: Any) -> dict[str, Any]:
        assert options["metrics"] == ("latency",)
        asked.append((options["model"], options["loss"], options["torch_device"]))
        return {"model": str(output), "device": device, "metrics": {"kendall": 0.5}}

    monkeypatch.setattr(train_rank, "train_rank", run)
    arguments = ["train", "rank", "--data", ".", "--device", "x", "-o", str(tmp_path / "m")]
    assert _json(capsys, *arguments)["metrics"] == {"kendall": 0.5}
    assert main(arguments) == 0
    assert "kendall" in capsys.readouterr().out
    _json(capsys, *arguments, "--loss", "efron")
    _json(capsys, *arguments, "--model", "network", "--torch-device", "auto")
    assert asked[1:] == [
        ("posterior", "listwise", "cpu"), ("network", "efron", "cpu"),
        ("network", "listwise", "auto"),
    ]  # fmt: skip
    for options in (("--loss", "efron"), ("--torch-device", "cuda")):
        error = _json(capsys, *arguments, "--model", "posterior", *options, exit_code=2)["error"]
        assert f"{options[0]}: only with --model network" in error["message"]
    assert len(asked) == 4


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


def test_latency_options_and_notes(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked: list[dict[str, Any]] = []

    def run(data: Any, **options: Any) -> dict[str, Any]:
        asked.append(options)
        return {"devices": {"x": {"kendall": 0.5, "n_samples": 8}}, "notes": ["x: 8 samples"]}

    monkeypatch.setattr(bench_latency, "run_bench_latency", run)
    arguments = ["bench", "latency", "--data", "."]
    assert _json(capsys, *arguments)["notes"] == ["x: 8 samples"]
    assert (asked[0]["model"], asked[0]["devices"], asked[0]["train_metric"]) == (
        "auto", None, None,
    )  # fmt: skip
    assert main([*arguments, "--metric", "energy", "--train-metric", "energy"]) == 0
    captured = capsys.readouterr()
    assert "n samples" in captured.out
    assert "notes" not in captured.out
    assert captured.err == "x: 8 samples\n"
    assert asked[1]["train_metric"] == "energy"
    assert main([*arguments, "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", ["latency", "search"])
def test_a_device_under_another_name_is_refused(
    verb: str, shared_data: Path, capsys: Capture
) -> None:
    devices = ["--train-devices", "gold_6226,cifar10_raspi4", "--devices", "raspi4"]
    assert main(["bench", verb, "--data", str(shared_data), *devices]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "'cifar10_raspi4'" in err
    assert "'raspi4'" in err


@pytest.mark.slow
def test_a_meta_predictor_is_not_judged_on_what_it_learned(
    shared_data: Path, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("torch")
    devices = ["--train-devices", "gold_6226,cifar10_raspi4", "--devices", "raspi4"]
    output = ["-o", str(tmp_path / "m.json")]
    assert main(["train", "meta", "--data", str(shared_data), *devices, *output]) == 3
    assert "'cifar10_raspi4'" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


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
