from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hwnas_sdk.core.errors import MeasurementError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.workflows.bench_measure import run_bench_measure
from hwnas_sdk.workflows.lab import Lab

KEYS = {
    "archs_per_s", "overhead_ms_per_network", "quiet", "export_ms_median",
    "export_speedup_vs_torch", "kendall_retest", "median_abs_rel_diff_retest",
    "board_time_saved_vs_fixed",
}  # fmt: skip


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def test_two_sweeps_per_protocol(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    answer = run_bench_measure(
        board, store=lab.store, cache=lab.cache, n=9, repeat=2, export_ratio=False
    )
    json.dumps(answer, allow_nan=False)
    assert set(answer) >= KEYS - {"export_speedup_vs_torch"}
    assert answer["n_compared"] == 9
    # The fake board's latencies depend on the file only: sweeps agree, and so do protocols.
    assert answer["kendall_retest"] > 0.9
    assert answer["kendall_vs_truth"] > 0.9
    assert answer["kendall_vs_truth_fixed"] > 0.9
    assert answer["board_time_saved_vs_fixed"] > 1.0
    assert answer["export_ms_median"] > 0.0
    assert len(lab.store.runs("bench-measure")) == 4
    assert all(run.finished_at for run in lab.store.runs("bench-measure"))


def test_one_sweep_has_no_retest(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    answer = run_bench_measure(
        board, store=lab.store, cache=lab.cache, n=3, repeat=1, compare_fixed=False,
        export_ratio=False, settings=settings_preset("quick"),
    )  # fmt: skip
    assert answer["kendall_retest"] is None
    assert answer["board_time_saved_vs_fixed"] is None


def test_a_machine_too_noisy_to_judge_says_so(lab: Lab) -> None:
    board = lab.device("fake://?mode=contended")
    with pytest.raises(MeasurementError) as caught:
        run_bench_measure(
            board, store=lab.store, cache=lab.cache, n=2, repeat=1, compare_fixed=False,
            export_ratio=False,
        )  # fmt: skip
    assert caught.value.code == "too_noisy"
