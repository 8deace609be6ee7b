"""The page of all searches: resumable, nothing left out, misses are said."""

from __future__ import annotations

import json

import pytest
import search_table

from hwnas_sdk.workflows.entrants import METHODS

DEVICES = "a,b,c"


def answer(value):
    figures = {
        "normalized_hv": value, "normalized_hv_sd": 0.001, "n_distinct": 24.0,
        "search_seconds": 1.0, "ask_seconds": 2.0,
        "train_seconds": 3.0,
    }  # fmt: skip
    return {"mean_normalized_hv": value, "devices": dict.fromkeys("abc", figures)}


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(search_table, "IMAGES", tmp_path / "img")
    return [
        "--data", str(tmp_path), "--devices", DEVICES, "--seeds", "2",
        "--out", str(tmp_path / "page.md"), "--state", str(tmp_path / "state.json"),
    ]  # fmt: skip


def test_the_page_holds_what_the_bench_says(command, tmp_path, monkeypatch):
    calls = []

    def bench(data, **options):
        calls.append(options)
        return answer({"auto": 0.9961, "modnas": 0.9}.get(options["method"], 0.95))

    monkeypatch.setattr(search_table, "run_bench_search", bench)
    assert search_table.main([*command, "--rows", "auto,modnas,random 24"]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| auto | 0.9961 (>= 0.995) | 0.0010 |" in page
    assert "| modnas | 0.9000 (>= 0.985, **missed**) |" in page
    assert "Not computed yet: auto 3 rounds" in page
    assert (tmp_path / "img" / "search-radar.png").is_file()
    assert [c["method"] for c in calls] == ["auto", "modnas", "random"]
    assert calls[1]["train_accuracies"] == 500
    # A second run asks only for what is missing.
    calls.clear()
    search_table.main([*command, "--rows", "auto,ofa"])
    assert [c["method"] for c in calls] == ["ofa"]
    with pytest.raises(SystemExit, match="another question"):
        search_table.main([*command, "--samples", "5"])


def test_rounds_are_drawn_from_what_was_kept(command, tmp_path, monkeypatch):
    several = answer(0.999) | {"candidates": 24}
    monkeypatch.setattr(search_table, "run_bench_search", lambda data, **options: several)
    assert search_table.main([*command, "--rows", "auto 3 rounds"]) == 0
    picture = tmp_path / "img" / "search-rounds.png"
    assert not picture.exists()  # an answer of a version that kept no single rounds
    stored = json.loads((tmp_path / "state.json").read_text())
    for figures in stored["answers"]["auto 3 rounds"]["devices"].values():
        figures["normalized_hv_by_round"] = [0.99, 0.998, 0.999]
    (tmp_path / "state.json").write_text(json.dumps(stored))
    assert search_table.main([*command, "--page-only"]) == 0
    assert "(img/search-rounds.png)" in (tmp_path / "page.md").read_text()
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_ablations_have_a_page(command, tmp_path, monkeypatch):
    last = {
        "epoch": 2, "predicted_normalized_hv": 0.99, "mean_scaled_latency": 0.4,
        "mean_scaled_error": 0.1,
    }  # fmt: skip
    done = {"history": [{**last, "epoch": 1}, last], "duration_s": 1.0}
    names = [f"scheme {s}" for s in search_table.SCHEMES] + [
        f"bound {b:g}" for b in search_table.BOUNDS
    ]
    question = {"devices": DEVICES.split(","), "samples": 10, "seeds": 2}
    state = {"question": question, "answers": dict.fromkeys(names, done)}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert search_table.main([*command, "--page-only"]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| 0.2 | 0.9900 | 0.400 | 0.1000 |" in page
    assert (tmp_path / "img" / "search-schemes.png").is_file()
    assert (tmp_path / "img" / "search-prior.png").is_file()


def test_every_method_of_the_bench_has_a_row():
    assert {row.method for row in search_table.ROWS} == set(METHODS)
