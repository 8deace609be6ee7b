"""Plans and results of runner invocations, without a board."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas_sdk.core.settings import MeasureSettings, settings_preset
from hwnas_sdk.devices.command_energy import energy_of, energy_runs
from hwnas_sdk.devices.command_job import (
    Ended,
    Invocation,
    plan_blocks,
    plan_calibration,
    read_invocation,
)
from hwnas_sdk.devices.command_runners import PerfTest, Timings
from hwnas_sdk.devices.command_script import frames_of
from hwnas_sdk.devices.jobs import SENTINEL

QUICK = settings_preset("quick")


def _tried(latency_ms: float) -> Ended:
    timings = Timings(
        samples_ns=None,
        summary_ms=latency_ms,
        statistic="median",
        runs=4,
        timed_s=4e-3 * latency_ms,
        warmup_s=1e-3 * latency_ms,
    )
    return Ended(timings, None, "", 0.0, 0.1 + 5e-3 * latency_ms, None)


FAILED = Ended(None, ("runtime_error", "no"), "", 0.0, 0.1, None)


def _plan(settings: MeasureSettings = QUICK, *, seed: int = 0, **tried: Ended) -> list[Invocation]:
    return plan_blocks(settings, {SENTINEL: _tried(1.0), **tried}, first=10, seed=seed)


def test_seven_blocks_each_in_rounds() -> None:
    plan = _plan(a=_tried(1.0), b=_tried(2.0), c=_tried(3.0))
    assert [one.number for one in plan] == list(range(10, 10 + len(plan)))
    items = [one.item for one in plan if one.item != SENTINEL]
    rounds = [items[start : start + 3] for start in range(0, len(items), 3)]
    assert len(rounds) == 7
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert plan[0].item == plan[-1].item == SENTINEL


def test_order_follows_from_the_seed() -> None:
    def order(seed: int) -> list[str]:
        return [one.item for one in _plan(seed=seed, a=_tried(1.0), b=_tried(1.0))]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


def test_what_failed_is_not_planned() -> None:
    assert {one.item for one in _plan(a=_tried(1.0), b=FAILED)} == {SENTINEL, "a"}
    assert _plan(a=FAILED) == []
    plan = plan_blocks(QUICK, {SENTINEL: FAILED, "a": _tried(1.0)}, first=1, seed=0)
    assert {one.item for one in plan} == {"a"}


def test_sentinel_returns_before_its_gap() -> None:
    settings = replace(QUICK, sentinel_max_gap_s=3.0)
    names = [one.item for one in _plan(settings, a=_tried(50.0), b=_tried(50.0))]
    gaps = " ".join(names).split(SENTINEL)
    # One block of 50 ms networks takes about 1.1 s.
    assert max(len(gap.split()) for gap in gaps) == 2


@pytest.mark.parametrize(
    ("latency_ms", "warm", "runs"),
    [(1.0, 200, 100), (0.01, 20_000, 2000), (30.0, 10, 10), (1000.0, 5, 10), (9000.0, 1, 10)],
)
def test_runs_follow_from_the_latency(latency_ms: float, warm: int, runs: int) -> None:
    block = next(one for one in _plan(a=_tried(latency_ms)) if one.item == "a")
    assert (block.warmup_runs, block.runs) == (warm, runs)
    assert block.limit_s >= 5e-3 * latency_ms * (warm + runs)


def test_settings_bound_the_blocks() -> None:
    for low, high, wanted in ((3, 5, 5), (7, 40, 7), (9, 40, 9)):
        settings = replace(QUICK, min_blocks=low, max_blocks=high)
        assert sum(one.item == "a" for one in _plan(settings, a=_tried(1.0))) == wanted


def _frames(done: str, *, err: str = "", cpu: str = "") -> dict[str, str]:
    return {"done.1": done, "out.1": "", "err.1": err, "res.1": "", "cpu.1": cpu}


@pytest.mark.parametrize(
    ("done", "err", "code"),
    [
        ("139 1.0 2.0 60\n", "Segmentation fault\n", "runtime_crashed"),
        ("1 1.0 2.0 60\n", "Load model failed\n", "runtime_error"),
        ("1 1.0 2.0 60\n", 'CANNOT LINK EXECUTABLE "x": no "y"\n', "runner_unusable"),
        ("126 1.0 2.0 60\n", "x: Permission denied\n", "runner_unusable"),
        ("124 1.0 61.1 60\n", "", "deadline"),
        ("143 1.0 61.1 60\n", "Terminated\n", "deadline"),  # older toybox
        ("0 1.0 2.0 60\n", "", "parse_failed"),
        ("0 1.0\n", "", "parse_failed"),
    ],
)
def test_failures_have_codes(done: str, err: str, code: str) -> None:
    (one,) = plan_calibration(["a"])
    ended = read_invocation(one, _frames(done, err=err), PerfTest())
    assert ended is not None
    assert ended.error is not None
    assert ended.error[0] == code


def test_invocation_without_a_note_has_not_ended() -> None:
    (one,) = plan_calibration(["a"])
    assert read_invocation(one, {"out.1": "text"}, PerfTest()) is None


@pytest.mark.parametrize(
    "cpu",
    [
        # The last is dash's (recorded), the others after the sources of busybox and mksh.
        "0m0.01s 0m0.00s\n1m2.50s 0m1.25s\n0m0.01s 0m0.00s\n1m3.00s 0m1.50s\n",
        "0m00.01s 0m00.00s\n1m02.50s 0m01.25s\n0m00.01s 0m00.00s\n1m03.00s 0m01.50s\n",
        "0m0.01s 0m0.00s\n1m2.500000s 0m1.250000s\n0m0.01s 0m0.00s\n1m3.000000s 0m1.500000s\n",
    ],
)
def test_processor_time_of_the_children(cpu: str) -> None:
    (one,) = plan_calibration(["a"])
    ended = read_invocation(one, _frames("1 1.0 2.0 60\n", cpu=cpu), PerfTest())
    assert ended is not None
    assert ended.cpu_s == 0.75


def test_frames_carry_any_text() -> None:
    data = b"1 running\n 9 out.1\n 0 done.1\n 9 total\n@@\n@@\nabc\n\xff\n"
    assert frames_of(data) == {
        "alive": "1",
        "state": "running",
        "out.1": "@@\nabc\n\ufffd\n",
        "done.1": "",
    }
    assert frames_of(b"0 busy 12 me\n") == {"alive": "0", "state": "busy 12 me"}
    for cut in (b"", b"1 runn", b"1 running\n 9 out.1\n", b"1 running\n 9 out.1\n@@\nabc", b"x\n"):
        with pytest.raises(ValueError, match=r"."):
            frames_of(cut)


def _gauge(current_ua: float, seconds: float, *, begin_s: float = 0.0, noise: float = 1e3) -> str:
    rng = np.random.default_rng(0)
    times_s = begin_s + np.arange(0.0, seconds, 0.25)
    currents = current_ua + noise * rng.standard_normal(times_s.size)
    rows = zip(times_s, currents, strict=True)
    return "".join(f"{t:.2f} {c:.0f} 4000000\n" for t, c in rows)


def _energy(before: str, during: str, after: str) -> dict:
    return energy_of(before, during, after, end_s=120.0, timed_s=100.0, runs=1000)


def test_energy_is_power_times_latency() -> None:
    during = _gauge(-200_000, 20.0) + _gauge(-500_000, 100.0, begin_s=20.0)
    got = _energy(_gauge(-300_000, 10.0), during, _gauge(-300_000, 10.0))
    assert got["reason"] is None
    assert got["gross_mj"] == pytest.approx(2000.0 * 0.1, rel=1e-3)  # 2 W for 100 ms
    assert got["net_mj"] == pytest.approx(800.0 * 0.1, rel=1e-2)
    assert 0.0 < got["gross_se_mj"] < 1.0


@pytest.mark.parametrize(
    ("idle_ua", "during_ua", "after_ua", "noise", "reason"),
    [
        (300_000, 300_500, 300_000, 1e3, "below_sensor_floor"),
        (300_000, 500_000, 360_000, 1e3, "idle_drift"),
        (300_000, 500_000, 300_000, 0.0, "sensor_stuck"),
        (300, 500, 300, 1.0, "sensor_failed"),
    ],
)
def test_energy_that_cannot_be_trusted(idle_ua, during_ua, after_ua, noise, reason) -> None:
    during = _gauge(during_ua, 120.0, noise=noise)
    before, after = (_gauge(value, 10.0, noise=noise) for value in (idle_ua, after_ua))
    got = _energy(before, during, after)
    assert got["reason"] == reason
    assert got.get("net_mj") is None
    assert (got.get("gross_mj") is not None) == (reason == "idle_drift")


def test_energy_without_readings() -> None:
    assert _energy("", "", "")["reason"] == "no_sensor"
    text = _gauge(3e5, 10.0)
    assert _energy(text, "1.0 300000\n", text)["reason"] == "parse_failed"
    hole = _gauge(5e5, 60.0, begin_s=20.0) + _gauge(5e5, 20.0, begin_s=100.0)
    assert _energy(text, hole, text)["reason"] == "sensor_gap"


def test_energy_loop_is_long_but_bounded() -> None:
    assert energy_runs(0.01) == 10_000
    assert energy_runs(1.0) == 200
    assert energy_runs(10.0) == 40
    assert energy_runs(1e4) == 1
