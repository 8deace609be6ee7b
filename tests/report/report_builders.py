"""Reports built from a handful of cells with round numbers, so that tests can look for them."""

from __future__ import annotations

from typing import Any

from hwnas_sdk.core.settings import PRESETS
from hwnas_sdk.core.types import Verdict, VerifiedCandidate
from hwnas_sdk.report import DriftPoint, ProfileData, ReportData, RoundData
from hwnas_sdk.spaces.nasbench201 import NasBench201

SPACE = NasBench201()


def make_arch(index: int) -> str:
    return SPACE.encode(SPACE.from_index(index))


def make_candidate(
    index: int, error_pct: float, predicted_ms: float, **fields: Any
) -> VerifiedCandidate:
    values: dict[str, Any] = {
        "arch": make_arch(index),
        "arch_id": SPACE.from_index(index).id,
        "error_pct": error_pct,
        "predicted_ms": predicted_ms,
        "predicted_sd_ms": 0.25,
        "measured_ms": predicted_ms * 1.1,
        "ci95_ms": 0.04,
        "peak_memory_mib": 51.5,
        "energy_mj": None,
        "flags": ("virtualised",),
        "on_predicted_front": True,
        "on_measured_front": True,
    }
    return VerifiedCandidate(**{**values, **fields})


def make_round(candidates: tuple[VerifiedCandidate, ...], label: str = "Round 1") -> RoundData:
    beaten = tuple(
        c.arch
        for c in candidates
        if c.on_predicted_front and not c.on_measured_front and c.measured_ms
    )
    several = sum(c.measured_ms is not None for c in candidates) > 1
    verdict = Verdict(
        device_id="dev",
        run_id="run-1",
        round=1,
        candidates=candidates,
        spearman=0.987 if several else None,
        kendall=0.912 if several else None,
        mape_pct=9.1 if several else None,
        hypervolume_predicted=0.8123,
        hypervolume_measured=0.7954,
        hypervolume_reference=(20.0, 60.0),
        dominated_after_measuring=beaten,
        n_tied_pairs=0,
    )
    return RoundData(verdict=verdict, label=label)


def default_candidates() -> tuple[VerifiedCandidate, ...]:
    return (
        make_candidate(1001, 14.0, 2.0),
        make_candidate(1002, 9.0, 3.0),
        make_candidate(1003, 8.5, 9.0),
        make_candidate(1004, 6.25, 20.0),
        make_candidate(1005, 9.5, 3.5, on_measured_front=False),
        make_candidate(1006, 10.0, 4.0, on_predicted_front=False, on_measured_front=False),
        make_candidate(
            1007,
            7.0,
            12.5,
            measured_ms=None,
            ci95_ms=None,
            flags=("contended", "virtualised"),
            peak_memory_mib=None,
            on_measured_front=False,
        ),
    )


def make_report(**fields: Any) -> ReportData:
    values: dict[str, Any] = {
        "title": "Quickstart on shelf-pi",
        "run_id": "q-8f31",
        "kind": "quickstart",
        "command": "hwnas quickstart --seed 7",
        "sdk_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05Z",
        "device": {
            "name": "shelf-pi",
            "soc": "BCM2711",
            "cores": 4,
            "memory_mib": 3792,
            "machine": "virtualised",
            "power_reason": "no_sensor",
        },
        "environment": {
            "governor": None,
            "freq_khz": [1500000, 1500000],
            "ort": {"version": "1.23"},
        },
        "settings": PRESETS["quick"].to_json(),
        "seed": 7,
        "rounds": (make_round(default_candidates()),),
        "provenance": {"error_pct": "predicted by a model trained on CIFAR-10 accuracies"},
    }
    return ReportData(**{**values, **fields})


def make_profile(**fields: Any) -> ProfileData:
    values: dict[str, Any] = {
        "reference_set": "ours-10",
        "architectures": (make_arch(10), make_arch(20), make_arch(30)),
        "latency_ms": (4.125, 12.5, None),
        "ci95_ms": (0.03, None, None),
        "name": "shelf-pi",
    }
    return ProfileData(**{**values, **fields})


def make_drift(n: int = 12) -> tuple[DriftPoint, ...]:
    return tuple(
        DriftPoint(t_s=5.0 * i, sentinel_ms=7.0 * (1.2 if i == 6 else 1 + 0.002 * i), job="j1")
        for i in range(n)
    )
