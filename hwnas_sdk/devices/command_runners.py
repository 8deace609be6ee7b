"""Benchmark programs a user brings for boards without Python: how to call them, what they say.

A parser is strict: text it does not fully understand is `ParseError`, never a guess, because a
pattern that matches the wrong line gives a wrong label nobody notices. The raw text is kept.

Sources: `benchmark_model` of LiteRT (its README and source; real output in the tests' fixtures) and
`onnxruntime_perf_test` of ONNX Runtime (README, `performance_result.h`, `command_args_parser.cc`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError

AGREE_REL: Final = 0.02
"""How far the mean of the single runs may lie from the mean the runner prints itself."""
_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"


class ParseError(Exception):
    """The output is not what this runner prints; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What one invocation of a runner said.

    Attributes:
        samples_ns: duration of each timed run after the warm-up, (n,) int64; None when the runner
            prints summaries only.
        summary_ms: median over the timed runs where the runner prints one, else their mean.
        statistic: which of the two.
        runs: timed runs.
        timed_s, warmup_s: spent in them and in the warm-up.
        load_ms, first_ms: loading the network, and its first run.
        peak_memory_bytes: of the whole process.
        facts: the rest, by the runner's own names.
    """

    samples_ns: NDArray[np.int64] | None
    summary_ms: float
    statistic: str
    runs: int
    timed_s: float
    warmup_s: float
    load_ms: float | None = None
    first_ms: float | None = None
    peak_memory_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Runner(ABC):
    """One kind of benchmark program.

    Attributes:
        kind: as in the option `kind=` of a device URI.
        runtime: name of the runtime in records.
        suffix: of the files it can run.
        has_samples: whether it tells every single run.
    """

    kind: ClassVar[str]
    runtime: ClassVar[str]
    suffix: ClassVar[str]
    has_samples: ClassVar[bool]

    @abstractmethod
    def arguments(
        self, model: str, result: str, *, threads: int, warmup_runs: int, runs: int, limit_s: int
    ) -> list[str]:
        """Arguments for `warmup_runs` + `runs` runs of the file `model`.

        `result` is a file the runner may write single times to.
        """

    @abstractmethod
    def parse(self, stdout: str, stderr: str, result: str, *, warmup_runs: int) -> Timings:
        """Return what an invocation that ended with status 0 said. Raises: ParseError."""


class BenchmarkModel(Runner):
    """LiteRT's `benchmark_model`: .tflite files, summaries only."""

    kind = "benchmark_model"
    runtime = "litert"
    suffix = ".tflite"
    has_samples = False

    _SUMMARY = re.compile(
        rf"count=(\d+) first={_NUMBER} curr={_NUMBER} min={_NUMBER} max={_NUMBER} "
        rf"avg={_NUMBER} std={_NUMBER}(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?\s*$",
        re.MULTILINE,
    )
    # One number for all runs when they took equally long (down to the microsecond).
    _CONSTANT = re.compile(r"count=(\d+) curr=([0-9]+(?:\.[0-9]+)?)\s*$", re.MULTILINE)
    _TIMINGS = re.compile(
        rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
        rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}\s*$",
        re.MULTILINE,
    )
    _FOOTPRINT = re.compile(
        rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) "
        rf"\(MB\): init={_NUMBER} overall={_NUMBER}"
    )

    def arguments(
        self, model: str, result: str, *, threads: int, warmup_runs: int, runs: int, limit_s: int
    ) -> list[str]:
        """Fixed numbers of runs: its own rules by time are switched off."""
        del result
        return [
            f"--graph={model}",
            f"--num_threads={threads}",
            f"--warmup_runs={max(warmup_runs, 1)}",
            "--warmup_min_secs=0",
            f"--num_runs={runs}",
            "--min_secs=0",
            f"--max_secs={limit_s}",
        ]

    def parse(self, stdout: str, stderr: str, result: str, *, warmup_runs: int) -> Timings:
        """Read the two summary lines (warm-up, timed) and the closing line."""
        del result, warmup_runs
        # The logger writes to either stream, by version and platform.
        text = stdout + "\n" + stderr
        closing = list(self._TIMINGS.finditer(text))
        if len(closing) != 1:
            raise ParseError(f"{len(closing)} lines 'Inference timings in us', expected 1")
        init_us, first_us, warmup_us, mean_us = (float(part) for part in closing[0].groups())
        summaries = self._summaries(text[: closing[0].start()])
        if len(summaries) != 2:
            raise ParseError(f"{len(summaries)} lines 'count=... avg=...', expected 2")
        warm, timed = summaries
        for name, line, whole_us in (("warm-up", warm, warmup_us), ("timed", timed, mean_us)):
            if abs(line["avg"] - whole_us) > max(1e-3 * whole_us, 1.0):
                raise ParseError(f"two {name} means: {line['avg']} and {whole_us} us")
        if not timed["count"] or timed["avg"] <= 0.0:
            raise ParseError("no timed runs")
        median_us = timed.get("median")
        footprint = self._FOOTPRINT.search(text)
        facts: dict[str, Any] = {"warmup": warm, "timed": timed}
        if footprint:
            facts["memory_footprint_delta_mb"] = float(footprint.group(2))
        return Timings(
            samples_ns=None,
            summary_ms=(timed["avg"] if median_us is None else median_us) / 1e3,
            statistic="mean" if median_us is None else "median",
            runs=int(timed["count"]),
            timed_s=timed["count"] * timed["avg"] / 1e6,
            warmup_s=warm["count"] * warm["avg"] / 1e6,
            load_ms=init_us / 1e3,
            first_ms=first_us / 1e3,
            facts=facts,
        )

    def _summaries(self, text: str) -> list[dict[str, float]]:
        names = ("count", "first", "curr", "min", "max", "avg", "std", "p5", "median", "p95")
        found: list[tuple[int, dict[str, float]]] = []
        for match in self._SUMMARY.finditer(text):
            pairs = zip(names, match.groups(), strict=True)
            found.append((match.start(), {key: float(part) for key, part in pairs if part}))
        for match in self._CONSTANT.finditer(text):
            count, value = float(match.group(1)), float(match.group(2))
            found.append((match.start(), {"count": count, "avg": value, "median": value}))
        return [line for _, line in sorted(found, key=lambda pair: pair[0])]


class PerfTest(Runner):
    """ONNX Runtime's `onnxruntime_perf_test`: .onnx files, every run in its result file."""

    kind = "perf_test"
    runtime = "ort"
    suffix = ".onnx"
    has_samples = True

    _LOAD = re.compile(rf"^Session creation time cost: ?{_NUMBER} s\s*$", re.MULTILINE)
    _FIRST = re.compile(rf"^First inference time cost: ?{_NUMBER} ms\s*$", re.MULTILINE)
    _MEAN = re.compile(
        rf"^Average (?:inference )?time cost(?: total)?: ?{_NUMBER} ms\s*$", re.MULTILINE
    )
    _MEMORY = re.compile(r"^Peak working set size: ?(\d+) bytes\s*$", re.MULTILINE)

    def arguments(
        self, model: str, result: str, *, threads: int, warmup_runs: int, runs: int, limit_s: int
    ) -> list[str]:
        """A fixed number of runs on random input; the first `warmup_runs` are dropped after."""
        del limit_s
        times = ["-m", "times", "-r", str(warmup_runs + runs)]
        return ["-e", "cpu", *times, "-x", str(threads), "-y", "1", "-I", model, result]

    def parse(self, stdout: str, stderr: str, result: str, *, warmup_runs: int) -> Timings:
        """Read the result file, and check it against the mean that was printed."""
        del stderr
        seconds = self._rows(result)
        printed = [float(part) for part in self._MEAN.findall(stdout)]
        if not printed:
            raise ParseError("no line 'Average inference time cost'")
        mean_ms = 1e3 * float(np.mean(seconds))
        if not any(abs(mean_ms - value) <= AGREE_REL * value for value in printed):
            raise ParseError(f"the single runs average {mean_ms:g} ms, it printed {printed[0]:g}")
        samples_ns = np.round(1e9 * seconds).astype(np.int64)
        warm, timed = samples_ns[:warmup_runs], samples_ns[warmup_runs:]
        if timed.size == 0 or int(timed.min()) <= 0:
            raise ParseError(f"{samples_ns.size} runs, {warmup_runs} of them warm-up")
        load, first = self._LOAD.search(stdout), self._FIRST.search(stdout)
        memory = self._MEMORY.search(stdout)
        return Timings(
            samples_ns=timed,
            summary_ms=float(np.median(timed)) / 1e6,
            statistic="median",
            runs=int(timed.size),
            timed_s=float(timed.sum()) / 1e9,
            warmup_s=float(warm.sum()) / 1e9,
            load_ms=1e3 * float(load.group(1)) if load else None,
            first_ms=float(first.group(1)) if first else None,
            peak_memory_bytes=int(memory.group(1)) if memory else None,
        )

    @staticmethod
    def _rows(result: str) -> NDArray[np.float64]:
        """Seconds of each run: ``name,seconds,peak,cpu,run`` (one more time since 1.24)."""
        seconds: list[float] = []
        for line in result.splitlines():
            if not line.strip():
                break  # the statistics after the rows, where they were asked for
            parts = line.split(",")
            if len(parts) not in {5, 6}:
                raise ParseError(f"a row of the result file has {len(parts)} fields")
            try:
                # With six, the first time is that of the submission alone.
                seconds.append(float(parts[-4]))
                run = int(parts[-1])
            except ValueError:
                raise ParseError(f"a row of the result file is no numbers: {line[:80]}") from None
            if run != len(seconds) - 1:
                raise ParseError(f"row {len(seconds) - 1} of the result file says run {run}")
        if not seconds:
            raise ParseError("the result file has no rows")
        values = np.array(seconds)
        if not np.isfinite(values).all():
            raise ParseError("the result file holds times that are not finite")
        return values


RUNNERS: Final[Sequence[Runner]] = (BenchmarkModel(), PerfTest())


def find_runner(file_name: str, kind: str = "") -> Runner:
    """Return how to use the program `file_name`, by `kind` or else by its name.

    Raises: ConfigError for an unknown kind, or a name that says nothing.
    """
    known = ", ".join(runner.kind for runner in RUNNERS)
    for runner in RUNNERS:
        if runner.kind == kind or (not kind and runner.kind in file_name):
            return runner
    if kind:
        raise ConfigError(f"unknown kind of runner {kind!r}", hint=f"known: {known}")
    raise ConfigError(
        f"cannot tell from its name what kind of runner {file_name!r} is",
        hint=f"say it in the device's URI: &kind=KIND, one of {known}",
    )
