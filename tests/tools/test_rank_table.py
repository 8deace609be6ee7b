"""The page of ranking: resumable, nothing left out, misses are said."""

from __future__ import annotations

import pytest
import rank_table

KEYS = rank_table.KEYS


def answer(plan, value):
    figures = dict.fromkeys(KEYS, value) | {"kendall_sd": 0.01, "n_fronts": 160, "n_tied_pairs": 7}
    figures |= {rank_table.NEW: value - 0.02, "new_families_share": 0.53}
    means = {f"mean_{key}": value for key in KEYS} | {f"mean_{rank_table.NEW}": value - 0.02}
    within = {rank_table.WITHIN: 0.8} if plan.model == "posterior" else {}
    figures, means = figures | within, means | {f"mean_{key}": 0.8 for key in within}
    if plan.independent:
        other = dict.fromkeys(KEYS, 0.6) | {rank_table.NEW: 0.55} | dict.fromkeys(within, 0.65)
        figures |= {"independent": other, "gain": value - 0.6, "seeds_ahead": 1}
    if plan.new_platform:
        figures |= {"new_platform": dict.fromkeys(KEYS, 0.5), "new_platform_loss": value - 0.5}
    found = {
        "devices": dict.fromkeys(plan.devices, figures), **means, "model": plan.model,
        "loss": plan.loss, "train": plan.train, "fit_seconds": 12.3, "score_seconds": 0.25,
    }  # fmt: skip
    if plan.independent:
        found |= {
            "independent": {f"mean_{key}": other[key] for key in other},
            "ahead_on": list(plan.devices), "not_ahead_on": [],
        }  # fmt: skip
    return found


@pytest.fixture
def calls(monkeypatch, tmp_path):
    monkeypatch.setattr(rank_table, "IMAGES", tmp_path / "img")
    (tmp_path / "img").mkdir()
    made = []

    def bench(data, plan):
        made.append(plan)
        return answer(plan, 0.7)

    monkeypatch.setattr(rank_table, "run_bench_rank", bench)
    return made


def test_the_page_holds_what_the_bench_says(calls, tmp_path):
    command = ["--data", str(tmp_path), "--seeds", "2", "--out", str(tmp_path / "page.md"),
               "--state", str(tmp_path / "state.json")]  # fmt: skip
    assert rank_table.main([*command, "--parts", "expected rank,100 labels,batches of 8"]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "mean 0.700 (>= 0.68) tau-b" in page
    assert "0.700 (>= 0.75, **missed**) in batches of 18" in page
    assert "mean 0.680 new functions" in page
    assert "New functions are 53% of the judged cells." in page
    assert "tau-b 0.600, over new functions 0.550" in page
    assert "| 100 labels | 0.700 | 0.680 |" in page
    figures = (
        "0.700 (0.010) | 0.680 | 0.700 | 0.700 | 0.7000 | 0.800 | 0.600 | 0.550 | +0.100 | 1 | "
        "0.650 |"
    )
    assert f"| titan_rtx_256 | {figures}" in page
    assert "inside each batch of 18: 0.800, independent predictors" in page
    assert "Ahead of them on all devices." in page
    assert "`hwnas bench rank --train 100 --seeds 1`" in page
    assert "Not computed yet: network, 200 labels" in page
    assert (tmp_path / "img" / "rank-batch-sizes.png").is_file()
    assert [plan.seeds for plan in calls] == [2, 1, 1]
    # A second run asks only for what is missing.
    calls.clear()
    rank_table.main([*command, "--parts", "expected rank,network"])
    assert [plan.model for plan in calls] == ["network"]
    assert "added in 5 epochs" in (tmp_path / "page.md").read_text()


def test_each_command_has_the_options_of_its_plan():
    commands = {part.name: part.command for part in rank_table.PARTS}
    assert commands["expected rank"] == "hwnas bench rank --against independent"
    assert commands["three objectives"] == (
        "hwnas bench rank --devices cifar10_edgegpu,cifar10_eyeriss "
        "--objectives error,latency,energy --against independent --seeds 1"
    )
    assert commands["batches of 8"] == (
        "hwnas bench rank --devices titan_rtx_256,raspi4 --model network --loss listwise "
        "--batch-size 8 --seeds 1"
    )
    assert len(set(commands.values())) == len(commands)


def test_unknown_parts_and_empty_pages_are_refused(tmp_path):
    state = ["--data", str(tmp_path), "--state", str(tmp_path / "state.json")]
    with pytest.raises(SystemExit, match="no part is called nothing"):
        rank_table.main([*state, "--parts", "nothing"])
    with pytest.raises(SystemExit, match="page-only"):
        rank_table.main([*state, "--page-only"])
