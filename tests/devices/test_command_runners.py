"""Strict reading of what benchmark programs print. Every text says where it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.command_runners import (
    BenchmarkModel,
    ParseError,
    PerfTest,
    find_runner,
)

# Recorded: github.com/tensorflow/tensorflow issue 42507 (2020), excerpt.
BENCHMARK_2020 = """STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
Enable op profiling: [1]
#threads used for CPU inference: [4]
Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""  # noqa: E501

# Recorded: a public repository's log of a phone (logcat prefix removed, as the binary prints it).
BENCHMARK_MEDIAN = """The input model file size (MB): 3.06409
Initialized session in 92.318ms.
count=3 first=235158 curr=200386 min=199462 max=235158 avg=211669 std=16613 p5=199462 median=200386 p95=235158
count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533
Inference timings in us: Init: 92318, First inference: 235158, Warmup (avg): 211669, Inference (avg): 145528
Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
"""  # noqa: E501

# Recorded: a public repository's notes on a Rock Pi 4B, without summaries: too little to trust.
BENCHMARK_SHORT = """Inference timings in us: Init: 5183, First inference: 85262, Warmup (avg): 69344.4, Inference (avg): 110385
Memory footprint delta from the start of the tool (MB): init=4.58984 overall=7.82031
"""  # noqa: E501

# Recorded: a public tutorial on ONNX Runtime with SME2 on a phone, `-m times -r 5 -s -Z -x 1`.
PERF_2025 = """Setting intra_op_num_threads to 1
Disabling intra-op thread spinning between runs
Session creation time cost: 0.217932 s
First inference time cost: 196 ms
Total inference time cost: 0.49481 s
Total inference requests: 5
Average inference time cost total: 98.961997 ms
Total inference run time: 0.494854 s
Number of inferences per second: 10.104
Avg CPU usage: 11 %
Peak working set size: 271122432 bytes
Avg CPU usage:11
Peak working set size:271122432
Runs:5
Min Latency: 0.0958204 s
Max Latency: 0.101519 s
P50 Latency: 0.0995086 s
"""
# After `performance_result.h` (name,seconds,peak,cpu,run): five times that fit the text above.
ROWS_2025 = """squeezenet,0.0958204,271122432,11,0
squeezenet,0.0995086,271122432,11,1
squeezenet,0.101519,271122432,11,2
squeezenet,0.0988,271122432,11,3
squeezenet,0.0991619,271122432,11,4

Min Latency is 0.0958204sec
"""

# Recorded: github.com/microsoft/onnxruntime issue 4331 (2020).
PERF_2020 = """Session creation time cost:0.133189 s
Total inference time cost:600.051 s
Total inference requests:7160
Average inference time cost:83.8059 ms
Total inference run time:600.102 s
"""


def test_summary_of_an_old_benchmark_model() -> None:
    got = BenchmarkModel().parse(BENCHMARK_2020, "", "", warmup_runs=1)
    assert got.samples_ns is None
    assert (got.summary_ms, got.statistic, got.runs) == (33.2094, "mean", 50)
    assert (got.load_ms, got.first_ms) == (0.855, 49.06)
    assert got.timed_s == pytest.approx(1.66047)
    assert got.warmup_s == pytest.approx(0.5223765)
    assert got.facts["memory_footprint_delta_mb"] == 12.8672


def test_median_is_preferred_to_the_mean() -> None:
    got = BenchmarkModel().parse("", BENCHMARK_MEDIAN, "", warmup_runs=1)
    assert (got.summary_ms, got.statistic, got.runs) == (141.253, "median", 25)
    assert got.facts["timed"]["p95"] == 187533.0


def test_lines_of_the_newer_logger_have_a_prefix() -> None:
    text = "\n".join(f"INFO: {line}" for line in BENCHMARK_MEDIAN.splitlines())
    assert BenchmarkModel().parse(text, "", "", warmup_runs=1).summary_ms == 141.253


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines 'Inference timings"),
        (BENCHMARK_SHORT, "0 lines 'count="),
        (BENCHMARK_MEDIAN + BENCHMARK_MEDIAN, "2 lines 'Inference timings"),
        (BENCHMARK_MEDIAN.replace("Inference (avg): 145528", "Inference (avg): 99"), "two timed"),
        (BENCHMARK_MEDIAN.replace("count=25", "count=0"), "no timed runs"),
        (BENCHMARK_MEDIAN.replace("avg=145528", "avg=nan"), "1 lines 'count="),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        BenchmarkModel().parse(text, "", "", warmup_runs=1)


def test_every_run_of_perf_test() -> None:
    got = PerfTest().parse(PERF_2025, "", ROWS_2025, warmup_runs=2)
    assert got.samples_ns is not None
    assert got.samples_ns.tolist() == [101_519_000, 98_800_000, 99_161_900]
    assert (got.load_ms, got.first_ms, got.peak_memory_bytes) == (217.932, 196.0, 271122432)
    assert got.warmup_s == pytest.approx(0.195329)
    assert got.summary_ms == pytest.approx(99.1619)


def test_newer_rows_have_two_times() -> None:
    """After pull request 26313: name,submission,total,peak,cpu,run."""
    rows = "".join(f"net,0.001,{0.02 + k / 1e4},1000,99,{k}\n" for k in range(10))
    text = PERF_2020.replace("83.8059", f"{1e3 * np.mean([0.02 + k / 1e4 for k in range(10)]):g}")
    got = PerfTest().parse(text, "", rows, warmup_runs=0)
    assert got.summary_ms == pytest.approx(20.45)
    assert got.load_ms == 133.189
    assert got.first_ms is None


@pytest.mark.parametrize(
    ("stdout", "rows", "message"),
    [
        (PERF_2025, "", "no rows"),
        ("", ROWS_2025, "Average inference time cost"),
        # Nanoseconds, as one version in between wrote them.
        (PERF_2025, ROWS_2025.replace(",0.", ",1000000."), "single runs average"),
        (PERF_2025, ROWS_2025.replace("11,3", "11,7"), "says run 7"),
        (PERF_2025, ROWS_2025.replace("squeezenet,0.0988,", "squeezenet,"), "4 fields"),
        (PERF_2025, ROWS_2025.replace("0.0988", "fast"), "no numbers"),
        (PERF_2025, ROWS_2025.replace("0.0988", "nan"), "not finite"),
        (PERF_2020, ROWS_2025, "it printed 83.8"),
    ],
)
def test_rows_that_do_not_fit_are_refused(stdout: str, rows: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        PerfTest().parse(stdout, "", rows, warmup_runs=1)


def test_all_runs_spent_on_the_warm_up_are_refused() -> None:
    with pytest.raises(ParseError, match="5 of them warm-up"):
        PerfTest().parse(PERF_2025, "", ROWS_2025, warmup_runs=5)


def test_arguments_ask_for_fixed_numbers_of_runs() -> None:
    options = {"threads": 2, "warmup_runs": 10, "runs": 40, "limit_s": 30}
    words = BenchmarkModel().arguments("net.tflite", "res", **options)
    assert {"--graph=net.tflite", "--num_threads=2", "--warmup_runs=10", "--num_runs=40"} <= {
        *words
    }
    assert {"--warmup_min_secs=0", "--min_secs=0", "--max_secs=30"} <= {*words}
    line = " ".join(PerfTest().arguments("net.onnx", "res", **options))
    assert "-m times -r 50" in line
    assert "-x 2 -y 1" in line
    assert line.endswith("-I net.onnx res")


def test_kind_follows_from_the_name() -> None:
    assert find_runner("onnxruntime_perf_test").kind == "perf_test"
    assert find_runner("android_aarch64_benchmark_model_plus_flex").kind == "benchmark_model"
    assert find_runner("my_runner", "perf_test").kind == "perf_test"
    with pytest.raises(ConfigError, match="cannot tell"):
        find_runner("my_runner")
    with pytest.raises(ConfigError, match="unknown kind"):
        find_runner("onnxruntime_perf_test", "trtexec")
