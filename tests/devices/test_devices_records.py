"""From facts to flags: one row per flag, plus the numbers of the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas_sdk.core import stats
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING, UNSTEADY
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.devices.jobs import Block, ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.quality import quiet_verdict
from hwnas_sdk.devices.records import measurements_of

SPEC = DeviceSpec(
    id="pi@01234567",
    name="pi",
    uri="local:",
    family="x86",
    soc="a chip",
    cores=2,
    memory_mib=1024,
    machine="bare",
)
OPTIONS = {"nice": -20, "cores": [0], "threads": 1, "providers": ["CPUExecutionProvider"]}
REQUESTED = {"nice": -20, "affinity": "auto", "threads": 1, "providers": None}
ENVIRONMENT: dict[str, Any] = {
    "governor": "performance",
    "options": OPTIONS,
    "requested": REQUESTED,
    "measured_at": "2026-01-01T00:00:00+00:00",
    "end": {"temperature_c": 50.0},
}
FACTS: dict[str, Any] = {
    "output_finite": True,
    "output_matches": True,
    "warmup": {"runs": 10, "duration_ns": 200_000_000, "converged": True},
    "n_blocks": 5,
    "stop": "precision",
}


def block(median_ns: float = 1e6, *, n: int = 100, t_s: float = 1.0, **changes: Any) -> Block:
    """A block of `n` samples spread evenly by 1 % around `median_ns`."""
    samples_ns = (median_ns * np.linspace(0.99, 1.01, n)).astype(np.int64)
    wall_ns = int(samples_ns.sum())
    fields: dict[str, Any] = {
        "cpu_ns": int(0.99 * wall_ns),
        "wall_ns": wall_ns,
        "freq_khz": 1_500_000,
        "steal_ns": 0,
        "throttle": 0,
        "t_ns": int(t_s * 1e9),
    }
    return Block(samples_ns=samples_ns, **{**fields, **changes})


def blocks(*medians_ns: float, **changes: Any) -> tuple[Block, ...]:
    """One block per median, a second apart, from t = 1 s."""
    return tuple(block(m, t_s=1.0 + k, **changes) for k, m in enumerate(medians_ns))


GOOD = ItemResult(item="net", blocks=blocks(1e6, 1.001e6, 0.999e6, 1e6, 1.002e6), facts=FACTS)
JOB = MeasureJob(
    "job", (JobItem("net", "space:1", "arch", None),), settings_preset("quick"), None, 0
)
SENTINEL = (block(2e6, t_s=0.0), block(2.01e6, t_s=20.0))
RESULT = JobResult(job_id="job", items=(GOOD,), sentinel=SENTINEL, environment=ENVIRONMENT)


def record_of(
    *,
    item: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    requested: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    baseline_ms: float | None = None,
):
    """The record of `GOOD` with some facts changed."""
    got = replace(GOOD, **{"facts": {**FACTS, **(facts or {})}, **(item or {})})
    full = {
        **ENVIRONMENT,
        "options": {**OPTIONS, **(options or {})},
        "requested": {**REQUESTED, **(requested or {})},
        **(environment or {}),
    }
    job = replace(JOB, settings=replace(JOB.settings, **(settings or {})))
    changed = replace(RESULT, **{"items": (got,), "environment": full, **(result or {})})
    records = measurements_of(
        job,
        changed,
        spec=replace(SPEC, **(spec or {})),
        origin="measured",
        baseline_sentinel_ms=baseline_ms,
        run_id="run",
        attempt_of=lambda _item: 1,
    )
    return records[0][0] if records else None


def sentinels(*medians_ns: float) -> dict[str, Any]:
    times_s = np.linspace(0.0, 20.0, len(medians_ns))
    return {
        "sentinel": tuple(block(m, t_s=float(t)) for m, t in zip(medians_ns, times_s, strict=True))
    }


def changed_clock(*clocks_khz: int) -> dict[str, Any]:
    return {"blocks": tuple(block(t_s=1.0 + k, freq_khz=f) for k, f in enumerate(clocks_khz))}


OUTLIERS = block(n=100)
OUTLIERS.samples_ns[:4] = 3_000_000  # 4 of 100, in each of five blocks
GPU = {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
OTHER = {"providers": ["CUDAExecutionProvider"]}
HOT = {"details": {"temperature_limit_c": 45.0}}

TABLE: list[tuple[str, dict[str, Any]]] = [
    ("contended", {"item": {"blocks": blocks(*[1e6] * 5, cpu_ns=50_000_000)}}),
    ("contended", {"options": {"threads": 2}}),
    # three short contended blocks of five: the sums alone would say 0.93
    (
        "contended",
        {
            "item": {
                "blocks": (
                    *[block(t_s=k, cpu_ns=8_000_000, n=10) for k in (1, 2, 3)],
                    block(t_s=4),
                    block(t_s=5),
                )
            }
        },
    ),
    ("steal", {"item": {"blocks": blocks(*[1e6] * 5, steal_ns=10_000_000)}}),
    ("throttled", {"item": {"blocks": (*GOOD.blocks[:4], block(throttle=1, t_s=5))}}),
    ("frequency_changed", {"item": changed_clock(1500, 1500, 1200, 1500, 1500)}),
    ("too_hot", {"spec": HOT}),
    ("too_hot", {"environment": {"end": {"temperature_c": 86.0, "temperature_limit_c": 85.0}}}),
    ("throttled", {"environment": {"throttle": {"seen": [[5_000_000_000, 6_000_000_000, ["x"]]]}}}),
    ("governor_not_pinned", {"environment": {"end": {"governor": "ondemand"}}}),
    ("sentinel_drift", {"result": sentinels(2e6, 2.1e6)}),
    ("sentinel_drift", {"result": sentinels(2e6, 2.3e6), "spec": {"machine": "virtualised"}}),
    ("sentinel_drift", {"baseline_ms": 1.7}),
    ("sentinel_drift", {"result": sentinels(2e6), "baseline_ms": 2.5}),
    ("ci_too_wide", {"item": {"blocks": blocks(1e6, 1.4e6, 1.1e6, 1.3e6, 1.2e6)}}),
    ("imprecise", {"item": {"blocks": blocks(1e6, 1.11e6, 1.02e6, 1.08e6, 1.05e6)}}),
    ("unsteady", {"baseline_ms": 1.3, "spec": {"machine": "emulated"}}),
    ("output_mismatch", {"facts": {"output_matches": False}}),
    ("output_not_finite", {"facts": {"output_finite": False}}),
    ("provider_fallback", {"requested": OTHER}),
    ("provider_fallback", {"facts": OTHER}),
    ("clock_unreliable", {"environment": {"clock": {"host_s": 10.0, "board_s": 10.5}}}),
    ("timeout", {"item": {"error_code": "timeout"}}),
    ("timeout", {"item": {"error_code": "timeout", "blocks": ()}}),
    ("truncated", {"item": {"error_code": "truncated"}}),
    ("truncated", {"item": {"error_code": "runtime_crashed"}}),
    ("truncated", {"facts": {"n_blocks": 6}}),
    ("truncated", {"item": {"blocks": blocks(1e6, 1e6)}, "facts": {"n_blocks": 2}}),
    ("lease_lost", {"item": {"error_code": "lease_lost"}}),
    ("warmup_unstable", {"facts": {"warmup": {"converged": False}}}),
    ("outliers_high", {"item": {"blocks": (OUTLIERS,) * 5}}),
    ("bimodal", {"item": {"blocks": blocks(1e6, 1.06e6, 1e6, 1.06e6, 1e6)}}),
    ("governor_not_pinned", {"environment": {"governor": "powersave"}}),
    ("affinity_denied", {"options": {"cores": None}}),
    ("nice_denied", {"options": {"nice": 0}}),
    ("nice_denied", {"options": {"nice": None}}),
    ("virtualised", {"spec": {"machine": "virtualised"}}),
    ("emulated", {"spec": {"machine": "emulated"}}),
    ("output_unchecked", {"facts": {"output_matches": None}}),
    ("energy_loop_differs", {"facts": {"energy": {"loop_differs": True, "reason": None}}}),
    ("energy_idle_drift", {"facts": {"energy": {"loop_differs": False, "reason": "idle_drift"}}}),
    ("drift_unchecked", {"result": {"sentinel": ()}}),
    ("drift_unchecked", {"result": sentinels(2e6)}),
    ("summary_only", {"item": {"blocks": (), "summary_latency_ms": 1.5, "facts": {}}}),
]


@pytest.mark.parametrize(
    ("flag", "facts"), TABLE, ids=[f"{k}-{f}" for k, (f, _) in enumerate(TABLE)]
)
def test_facts_make_the_flag(flag, facts) -> None:
    record = record_of(**facts)
    assert flag in record.flags
    if flag in INVALIDATING:
        assert record.status == "invalid"
    else:
        assert record.status == "valid"


UNSTEADY_FACTS: dict[str, dict[str, Any]] = {
    "contended": {"item": {"blocks": blocks(*[1e6] * 5, cpu_ns=50_000_000)}},
    "steal": {"item": {"blocks": blocks(*[1e6] * 5, steal_ns=10_000_000)}},
    "sentinel_drift": {"baseline_ms": 1.3},
    "ci_too_wide": {"item": {"blocks": blocks(1e6, 1.4e6, 1.1e6, 1.3e6, 1.2e6)}},
}


@pytest.mark.parametrize("flag", sorted(UNSTEADY))
def test_an_emulator_need_not_be_steady(flag) -> None:
    assert flag in record_of(**UNSTEADY_FACTS[flag]).flags
    record = record_of(**UNSTEADY_FACTS[flag], spec={"machine": "emulated"})
    assert record.status == "valid"
    assert {"emulated", "unsteady"} <= set(record.flags)
    assert flag not in record.flags


def test_a_wrong_output_is_wrong_on_an_emulator_too() -> None:
    record = record_of(facts={"output_matches": False}, spec={"machine": "emulated"})
    assert record.status == "invalid"


def test_every_flag_is_tested() -> None:
    assert {flag for flag, _ in TABLE} == set(INVALIDATING) | set(INFORMATIVE)


def test_a_good_run_has_no_flags() -> None:
    assert record_of().flags == ()


@pytest.mark.parametrize(
    "facts",
    [
        {"item": {"blocks": blocks(*[1e6] * 5, steal_ns=2_000_000)}},  # within one tick of 10 ms
        {
            "item": {"blocks": (*GOOD.blocks[:4], block(t_s=5, cpu_ns=60_000_000))}
        },  # one block of five
        {"item": changed_clock(1500, 1510, 1490, 1500, 1500)},
        {"result": sentinels(2e6, 2.04e6)},
        {"result": sentinels(2e6), "baseline_ms": 1.95},
        {"environment": {"governor": None}},
        {"environment": {"end": {"temperature_c": 84.0, "temperature_limit_c": 85.0}}},
        {"environment": {"throttle": {"seen": [[6_000_000_000, 7_000_000_000, ["x"]]]}}},
        {"environment": {"throttle": {"polls": 3, "seen": [], "error": "parse_failed"}}},
        {
            "options": GPU,
            "facts": GPU,
            "requested": GPU,
            "item": {"blocks": blocks(*[1e6] * 5, cpu_ns=20_000_000)},
        },
        {"environment": {"clock": {"host_s": 10.0, "board_s": 10.05}}},
        {"environment": {"clock": {"host_s": 0.2, "board_s": 0.1}}},
        {
            "item": {
                "blocks": tuple(
                    replace(b, cpu_ns=None, freq_khz=None, steal_ns=None, throttle=None)
                    for b in GOOD.blocks
                )
            }
        },
        {"requested": {"nice": None, "affinity": None}, "options": {"nice": 0, "cores": None}},
        {"options": {"threads": 2}, "item": {"blocks": blocks(*[1e6] * 5, cpu_ns=195_000_000)}},
        {
            "settings": {"ci_rel_target": 0.0},
            "item": {"blocks": blocks(1e6, 1.06e6, 1.02e6, 1.04e6, 1.03e6)},
        },
    ],
)
def test_facts_that_make_no_flag(facts) -> None:
    assert record_of(**facts).flags == ()


def test_only_the_sentinels_around_an_item_count() -> None:
    early = replace(GOOD, blocks=tuple(block(t_s=t) for t in (1, 2, 3, 4, 5)))
    late = replace(GOOD, item="late", blocks=tuple(block(t_s=t) for t in (21, 22, 23, 24, 25)))
    job = replace(JOB, items=(JOB.items[0], JobItem("late", "space:2", "other", None)))
    reference = (block(2e6, t_s=0), block(2e6, t_s=20), block(2.5e6, t_s=40))
    result = replace(RESULT, items=(early, late), sentinel=reference)
    records = measurements_of(
        job,
        result,
        spec=SPEC,
        origin="measured",
        baseline_sentinel_ms=None,
        run_id="run",
        attempt_of=lambda _item: 1,
    )
    assert [record.flags for record, _ in records] == [(), ("sentinel_drift",)]


def test_numbers_of_a_record() -> None:
    record = record_of(
        item={
            "load_ms": 12.0,
            "first_ms": 3.0,
            "peak_memory_mib": 40.0,
            "energy_reason": "no_sensor",
        }
    )
    pooled_ms = np.concatenate([b.samples_ns for b in GOOD.blocks]) / 1e6
    assert record.latency_ms == pytest.approx(1.0, rel=1e-5)
    assert record.latency_p90_ms == pytest.approx(np.quantile(pooled_ms, 0.9))
    assert record.latency_iqr_ms == pytest.approx(
        np.subtract(*np.quantile(pooled_ms, [0.75, 0.25]))
    )
    medians_ms = np.array(record.details["block_medians_ms"])
    assert record.ci95_ms == stats.ci_half_width(medians_ms)
    assert record.n_samples == 500
    assert (record.first_ms, record.load_ms, record.peak_memory_mib) == (3.0, 12.0, 40.0)
    assert record.energy_mj is None
    assert record.energy_reason == "no_sensor"
    assert record.details["n_blocks"] == 5
    assert record.details["cpu_wall_ratio"] == pytest.approx(0.99, abs=1e-3)
    assert record.details["sentinel_ms"] == pytest.approx([2.0, 2.01])
    assert record.details["sentinel_t_s"][0] == 0.0
    assert len(record.details["sentinel_t_s"]) == 2
    assert record.details["warmup_s"] == 0.2
    assert record.details["stop"] == "precision"
    assert record.details["runtime"]["threads"] == 1
    assert record.details["runtime"]["name"] == "ort"
    assert record.details["runtime"]["tuned"] is None
    assert record.environment["governor"] == "performance"
    assert record.measured_at == "2026-01-01T00:00:00+00:00"
    assert (record.run_id, record.item, record.attempt) == ("run", "net", 1)


@pytest.mark.parametrize(
    ("of_item", "of_job", "tuned"), [(True, False, True), (False, None, False), (None, True, True)]
)
def test_a_record_says_what_ran_and_whether_it_was_tuned(of_item, of_job, tuned) -> None:
    options = {"runtime": "tvm", "runtime_version": "0.27.0", "tuned": of_job}
    record = record_of(options=options, facts={"tuned": of_item}, settings={"runtime": "tvm"})
    assert record.details["runtime"]["name"] == "tvm"
    assert record.details["runtime"]["version"] == "0.27.0"
    assert record.details["runtime"]["tuned"] is tuned


def test_few_samples_have_no_tail() -> None:
    record = record_of(item={"blocks": tuple(block(n=12, t_s=1 + k) for k in range(5))})
    assert record.n_samples == 60
    assert record.latency_p90_ms is None
    assert record.latency_iqr_ms is not None


def test_a_label_is_the_median_of_block_medians() -> None:
    record = record_of(item={"blocks": (*blocks(1e6, 1e6, 1e6, 9e6), block(1e6, n=3, t_s=9))})
    assert record.latency_ms == pytest.approx(1.0, rel=1e-5)


def test_failed_item_is_kept_as_invalid() -> None:
    record = record_of(item={"blocks": (), "error_code": "load_failed", "error_message": "why"})
    assert record.latency_ms is None
    assert record.status == "invalid"
    assert record.details["error_code"] == "load_failed"
    assert record.details["error_message"] == "why"


def test_items_a_job_never_came_to_give_no_record() -> None:
    assert record_of(item={"blocks": (), "error_code": "truncated"}) is None
    assert record_of(item={"blocks": (), "error_code": "cancelled"}) is None
    assert record_of(item={"error_code": "cancelled"}) is None  # nor use up an attempt


def test_contended_labels_are_not_rescaled() -> None:
    record = record_of(item={"blocks": blocks(*[3e6] * 5, cpu_ns=100_000_000)})
    assert record.latency_ms == pytest.approx(3.0)
    assert "contended" in record.flags


@pytest.mark.parametrize("provider", ["CPU", "CPUExecutionProvider"])
def test_every_cpu_runtime_can_be_contended(provider: str) -> None:
    got = {"providers": [provider]}
    record = record_of(
        options=got, facts=got, item={"blocks": blocks(*[3e6] * 5, cpu_ns=100_000_000)}
    )
    assert "contended" in record.flags


def test_quiet_verdict() -> None:
    assert quiet_verdict([RESULT]) == (True, [])
    busy = replace(RESULT, items=(replace(GOOD, blocks=blocks(1e6, cpu_ns=50_000_000)),))
    quiet, reasons = quiet_verdict([busy])
    assert not quiet
    assert "CPU/wall" in reasons[0]
    quiet, reasons = quiet_verdict([RESULT, replace(RESULT, **sentinels(2e6, 2.4e6))])
    assert not quiet
    assert "the sentinel varied by" in reasons[0]
    quiet, reasons = quiet_verdict([replace(RESULT, items=(), sentinel=())])
    assert not quiet
    assert len(reasons) == 2
    two_threads = replace(
        RESULT,
        items=(replace(GOOD, blocks=blocks(1e6, cpu_ns=199_000_000)),),
        sentinel=tuple(replace(b, cpu_ns=2 * b.wall_ns) for b in SENTINEL),
        environment={**ENVIRONMENT, "options": {**OPTIONS, "threads": 2}},
    )
    assert quiet_verdict([two_threads])[0]
