"""The workflow verbs in process, on a board that answers at once (its numbers are made up)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.cli import lab as cli_lab
from hwnas_sdk.cli.main import main
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER
from hwnas_sdk.workflows.search import METHODS

FAKE = "fake://?mode=ok"
OTHER = "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def call(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json", "-q"]) == code, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.slow
def test_quickstart_answers_with_the_contracts_keys(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    answer = call(capsys, "quickstart", "--device", FAKE, "-o", str(page))
    assert set(answer) >= {
        "device", "reference_measurements", "candidates", "verified",
        "spearman_predicted_vs_measured", "report", "duration_s", "store",
    }  # fmt: skip
    assert answer["reference_measurements"] == 10
    assert answer["candidates"] == answer["verified"] == 24
    assert Path(answer["report"]) == page
    text = page.read_text(encoding="utf-8")
    assert "simulated" in text
    assert Path(answer["store"]).is_file()


def test_profile_search_verify_report_compare(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = call(capsys, "profile", FAKE, "-o", str(tmp_path / "p.yaml"))
    assert set(profile) >= {"device", "reference_set", "latency_ms", "energy_mj", "flags"}
    assert len(profile["latency_ms"]) == 10
    front = tmp_path / "front.json"
    found = call(capsys, "search", "--device", FAKE, "--candidates", "5", "-o", str(front))
    assert set(found) >= {"front", "n_evaluations", "duration_s"}
    assert len(found["front"]) == 5
    assert set(found["front"][0]) >= {"arch", "error_pct", "latency_ms", "energy_mj", "origin"}
    assert {row["origin"] for row in found["front"]} == {"predicted"}
    other = call(capsys, "search", "--device", FAKE, "--method", "mo-rea", "--candidates", "5")
    assert (found["method"], other["method"]) == ("exhaustive", "mo-rea")
    assert len(other["front"]) == 5
    verdict = call(capsys, "verify", str(front), "--device", FAKE)
    assert set(verdict) >= {
        "candidates", "spearman", "kendall", "mape_pct", "hypervolume_predicted",
        "hypervolume_measured", "dominated_after_measuring",
    }  # fmt: skip
    assert {"arch", "predicted_ms", "measured_ms"} <= set(verdict["candidates"][0])
    again = call(capsys, "verify", str(front), "--device", FAKE)
    page = call(capsys, "report", "last", "-o", str(tmp_path / "r.html"))
    assert page["run"] == again["run_id"]
    both = call(capsys, "compare", verdict["run_id"], again["run_id"], "--fail-above", "5")
    assert len(both["pairs"]) == 5
    assert both["worst_regression_pct"] == 0.0
    call(capsys, "compare", profile["device"], again["run_id"], code=6)


def test_search_with_nothing_measured_says_where_it_starts_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    front = tmp_path / "front.json"
    asked = ("search", "--device", FAKE, "--candidates", "5", "-o", str(front))
    call(capsys, *asked, code=6)  # no profile of it
    found = call(capsys, *asked, "--zero-measurements")
    assert found["zero_measurements"] is True
    assert "profile" in found["warning"]
    assert len(found["front"]) == 5
    assert all(row["latency_sd_ms"] > 0.1 * row["latency_ms"] for row in found["front"])


def test_a_device_that_cannot_be_reached_is_searched_by_its_family(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    front = tmp_path / "front.json"
    asked = ("search", "--zero-measurements", "--candidates", "3")
    found = call(capsys, *asked, "--family", "x86", "--chip", "AMD EPYC", "-o", str(front))
    assert found["device"] == "any x86 AMD EPYC"
    assert "the same chip" in found["warning"]
    assert len(found["front"]) == 3
    call(capsys, "verify", str(front), "--device", FAKE, code=6)  # of no device that is there
    far = call(capsys, *asked, "--family", "riscv64")
    assert "neither chip nor family" in far["warning"]
    for more in ((), ("--dry-run",)):
        wrong_name = call(capsys, *asked, "--family", "arm64", *more, code=3)
        assert "aarch64" in wrong_name["error"]["hint"]
    third = call(capsys, *asked, "--family", "x86", "--objectives", "error,latency,energy", code=3)
    assert "nothing was measured" in third["error"]["message"]
    for wrong in (
        ("search", "--family", "x86"),
        (*asked, "--chip", "AMD EPYC"),
        (*asked, "--family", "x86", "--device", FAKE),
    ):
        assert call(capsys, *wrong, code=2)["error"]["code"] == "usage"


def test_options_that_would_do_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        ("--active", "--references", "paper"),
        ("--precision", "1"),
        ("--max-networks", "9"),
    ):
        refused = call(capsys, "profile", FAKE, *wrong, "--dry-run", code=2)
        assert "--active" in refused["error"]["message"]
    plan = call(capsys, "profile", FAKE, "--active", "--dry-run")
    assert (plan["references"], plan["n_networks"]) == ("active", 20)
    assert call(capsys, "profile", FAKE, "--dry-run")["references"] == "ours"


def test_compare_fails_on_a_regression(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Two replayed boards: the second is 20 % slower on one network and faster on the other."""
    table = tmp_path / "boards.parquet"
    columns = {"arch": [CELL, OTHER], "old": [1.0, 2.0], "new": [1.2, 1.0]}
    pq.write_table(pa.table(columns), table)
    old, new = (
        call(capsys, "measure", CELL, OTHER, "--device", f"replay://{table}#{column}")["run"]
        for column in ("old", "new")
    )
    both = call(capsys, "compare", old, new, "--fail-above", "25", "-o", str(tmp_path / "c.html"))
    assert both["worst_regression_pct"] == pytest.approx(20.0)
    assert [pair["change_pct"] for pair in both["pairs"]] == pytest.approx([20.0, -50.0])
    assert CELL in (tmp_path / "c.html").read_text(encoding="utf-8")
    failed = call(capsys, "compare", old, new, "--fail-above", "10", code=5)
    assert failed["worst_regression_pct"] == both["worst_regression_pct"]


def test_a_table_takes_no_board_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "boards.parquet"
    pq.write_table(pa.table({"arch": [CELL], "a": [1.0]}), table)
    assert main(["measure", CELL, "--device", f"replay://{table}#a"]) == 0
    assert "imported, no board time" in capsys.readouterr().err


def test_measure_documents_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(capsys, "measure", CELL, "#6111", "--device", FAKE, "--folded")
    assert len(answer["measurements"]) == 2
    for row in answer["measurements"]:
        assert set(row) >= {
            "arch", "artifact_sha256", "latency_ms", "latency_p90_ms", "latency_iqr_ms",
            "energy_mj", "peak_memory_mib", "n_samples", "flags", "origin",
        }  # fmt: skip
    assert answer["measurements"][0]["arch"] == CELL


def test_invalid_measurements_exit_5_and_are_still_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["measure", CELL, "--device", "fake://?mode=contended", "--json", "-q"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["measurements"][0]["status"] == "invalid"
    assert err.count("\n") == 1
    assert "[invalid_measurements]" in err


@pytest.mark.slow
def test_loop_reports_each_round(capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(
        capsys, "loop", "--device", FAKE, "--rounds", "2", "--candidates", "3", "--seed", "4"
    )
    assert [one["round"] for one in answer["rounds"]] == [1, 2]
    assert all({"spearman", "hypervolume_measured"} <= set(one) for one in answer["rounds"])
    assert answer["stopped"] == "rounds"


def test_search_by_rank_is_verified_like_any_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(capsys, "profile", FAKE)
    front = tmp_path / "front.json"
    asked = (
        "search", "--device", FAKE, "--method", "rank", "--candidates", "4", "--max-latency-ms",
        "1000", "--seed", "3",
    )  # fmt: skip
    plan = call(capsys, *asked, "--dry-run")
    assert (plan["method"], plan["ranker"]) == ("rank", None)
    found = call(capsys, *asked, "-o", str(front))
    assert found["method"] == "rank"
    assert found["n_evaluations"] == plan["n_evaluations"] == 5000
    assert len({row["arch"] for row in found["front"]}) == 4
    assert call(capsys, *asked)["front"] == found["front"]
    verdict = call(capsys, "verify", str(front), "--device", FAKE)
    assert [row["arch"] for row in verdict["candidates"]] == [row["arch"] for row in found["front"]]
    error = call(capsys, "search", "--device", FAKE, "--ranker", str(front), code=3)["error"]
    assert "--method rank" in error["hint"]


@pytest.mark.slow
def test_loop_by_rank_learns_from_each_round(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ("loop", "--device", FAKE, "--rounds", "2", "--candidates", "3", "--method", "rank")
    answer = call(capsys, *asked)
    assert [one["round"] for one in answer["rounds"]] == [1, 2]
    measured = [row["arch"] for one in answer["rounds"] for row in one["candidates"]]
    assert len(set(measured)) == 6
    page = tmp_path / "page.html"
    call(capsys, "report", answer["run"], "-o", str(page))
    assert "--method rank" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_page_names_the_file_that_guided_its_loop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weights = WEIGHTS_FOLDER / "nb201_hypernetwork.safetensors"
    answer = call(
        capsys, "loop", "--device", FAKE, "--rounds", "1", "--candidates", "2", "--method",
        "modnas", "--hypernetwork", str(weights),
    )  # fmt: skip
    page = tmp_path / "page.html"
    call(capsys, "report", answer["run"], "-o", str(page))
    assert f"--hypernetwork {weights}" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_three_objectives_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "profile", FAKE)
    found = call(
        capsys, "search", "--device", FAKE, "--objectives", "error,latency,memory",
        "--candidates", "3", "--max-memory-mib", "100000",
    )  # fmt: skip
    assert found["objectives"] == ["error", "latency", "memory"]
    assert all(row["peak_memory_mib"] is not None for row in found["front"])
    error = call(capsys, "search", "--device", FAKE, "--max-latency-ms", "1e-9", code=6)
    assert error["error"]["code"] == "nothing_found"


def test_search_offers_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line lists them itself, so that help needs no import of the search."""
    assert cli_lab.METHODS == METHODS
    for method in METHODS:
        answer = call(capsys, "search", "--device", FAKE, "--method", method, "--dry-run")
        assert answer["method"] == method
    assert call(capsys, "search", "--method", "magic", code=2)["error"]


@pytest.mark.parametrize(
    "argv",
    [
        ("quickstart",), ("profile", FAKE), ("measure", "space:nasbench201", "--n", "7"),
        ("search",), ("loop", "--rounds", "2"), ("bench", "measure"),
    ],
)  # fmt: skip
def test_dry_runs_measure_nothing(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    device = () if argv[0] == "profile" else ("--device", FAKE)
    answer = call(capsys, *argv, *device, "--dry-run")
    assert answer["dry_run"] is True
    from hwnas_sdk._resources import default_store_path
    from hwnas_sdk.store.sqlite import MeasurementStore

    if default_store_path().exists():
        with MeasurementStore.open(default_store_path(), read_only=True) as store:
            assert store.measurements() == []


def test_bench_measure_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(
        capsys, "bench", "measure", "--device", FAKE, "--n", "4", "--repeat", "1", "--no-fixed",
        "--no-torch",
    )  # fmt: skip
    assert answer["n_compared"] == 4
    assert answer["archs_per_s"] > 0


@pytest.mark.parametrize(
    ("argv", "code", "shown"),
    [
        (("measure", "nonsense"), 3, "bad_architecture"),
        (("measure", "#15625"), 3, "bad_architecture"),
        (("measure", "missing.onnx"), 3, "model_missing"),
        (("measure", CELL, "--device", "nobody"), 3, "unknown_device"),
        (("measure", CELL, "--fix-dim", "N"), 3, "bad_fixed_dim"),
        (
            ("measure", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "--folded"),
            3,
            "dead_cell",
        ),
        (("search", "--device", FAKE), 6, "no_profile"),
        (("search", "--objectives", "error"), 3, "config"),
        (("verify", "missing.json"), 6, "bad_front"),
        (("report", "feedbeef"), 6, "no_store"),
        (("compare", "a", "b"), 6, "no_store"),
        (("profile", "ftp://x"), 3, "unknown_scheme"),
        (("measure",), 2, "usage"),
        (("loop", "--rounds", "0"), 2, "usage"),
    ],
)
def test_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, shown: str
) -> None:
    assert main([*argv, "-q"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert f"[{shown}]" in err
    assert "Traceback" not in err


def test_a_dry_quickstart_leaves_no_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "nothing" / "here"
    monkeypatch.setenv("HWNAS_HOME", str(home))
    answer = call(capsys, "quickstart", "--dry-run", "-o", str(tmp_path / "no" / "report.html"))
    assert answer["dry_run"] is True
    assert answer["estimated_board_s"] > 0
    assert list(tmp_path.iterdir()) == []
    unknown = call(capsys, "quickstart", "--dry-run", "--device", "nobody", code=3)
    assert unknown["error"]["code"] == "unknown_device"
    assert list(tmp_path.iterdir()) == []
