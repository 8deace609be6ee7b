"""Prediction against measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.types import (
    OBJECTIVES,
    Candidate,
    Measurement,
    ParetoFront,
    Verdict,
    VerifiedCandidate,
)
from hwnas_sdk.predictors.metrics import kendall, spearman, tied_pairs

Box = tuple[float, float]


def reference_box(candidates: Sequence[Candidate]) -> Box:
    """Reference point (error_pct, latency_ms) for the hypervolumes of a run.

    10 % beyond the worst predicted values, so that the extremes of the front count; the ideal
    point is (0, 0). A run keeps the box of its first round, so its rounds can be compared.
    """
    worst_error = max(c.values["error_pct"] for c in candidates)
    worst_latency = max(c.values["latency_ms"] for c in candidates)
    return 1.1 * worst_error, 1.1 * worst_latency


def scaled_hypervolume(error_pct: Sequence[float], latency_ms: Sequence[float], box: Box) -> float:
    """Hypervolume in the unit square spanned by (0, 0) and `box`; 0 without points."""
    if not error_pct:
        return 0.0
    points = np.column_stack([error_pct, latency_ms]) / np.asarray(box)
    return pareto.hypervolume(points, np.ones(2))


def judge(
    front: ParetoFront,
    measured: Mapping[str, Measurement],
    *,
    run_id: str,
    round_number: int,
    box: Box,
) -> Verdict:
    """Compare the candidates of `front` with `measured` (by architecture id).

    Candidates without a measurement (board time spent) are left out; invalid measurements are
    shown and counted in nothing.
    """
    chosen = [c for c in front.candidates if c.architecture.id in measured]
    records = [measured[c.architecture.id] for c in chosen]
    predicted = np.array([_objectives(c) for c in chosen]).reshape(-1, 2)
    valid = np.array([m.status == "valid" for m in records], dtype=bool)
    actual = predicted.copy()
    actual[:, 1] = [
        float(m.latency_ms) if m.status == "valid" and m.latency_ms is not None else np.inf
        for m in records
    ]
    objectives, believed, found = _beyond(front, chosen, records, valid)
    on_predicted = _front_mask(np.column_stack([predicted, believed]), valid)
    on_measured = _front_mask(np.column_stack([actual, found]), valid)
    energy = [
        (c.values["energy_mj"], m.energy_mj)
        for c, m, ok in zip(chosen, records, valid, strict=True)
        if ok and m.energy_mj is not None and "energy_mj" in c.values
    ]
    believed_mj, found_mj = np.array(energy, dtype=np.float64).reshape(-1, 2).T
    rows = tuple(
        _row(candidate, record, on_predicted=bool(was), on_measured=bool(is_now))
        for candidate, record, was, is_now in zip(
            chosen, records, on_predicted, on_measured, strict=True
        )
    )
    p, m = predicted[valid, 1], actual[valid, 1]
    return Verdict(
        device_id=records[0].device_id if records else front.device_id,
        run_id=run_id,
        round=round_number,
        candidates=rows,
        spearman=spearman(m, p),
        kendall=kendall(m, p),
        mape_pct=float(np.mean(np.abs(p - m) / m) * 100) if len(p) else None,
        hypervolume_predicted=scaled_hypervolume(predicted[valid, 0].tolist(), p.tolist(), box),
        hypervolume_measured=scaled_hypervolume(actual[valid, 0].tolist(), m.tolist(), box),
        hypervolume_reference=box,
        dominated_after_measuring=tuple(
            row.arch
            for row in rows
            if row.measured_ms is not None and row.on_predicted_front and not row.on_measured_front
        ),
        n_tied_pairs=tied_pairs(m),
        objectives=("error", "latency", *objectives),
        origin=records[0].origin if records else "measured",
        energy_spearman=spearman(found_mj, believed_mj) if energy else None,
        energy_mape_pct=float(np.mean(np.abs(believed_mj - found_mj) / found_mj) * 100)
        if energy
        else None,
    )


_MEASURED = {"energy": "energy_mj", "memory": "peak_memory_mib"}


def _beyond(
    front: ParetoFront,
    chosen: Sequence[Candidate],
    records: Sequence[Measurement],
    valid: NDArray[np.bool_],
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Objectives beyond error and latency that every valid record has: names, predicted, measured.

    Shapes: (n, number of names) both; invalid rows are infinite where they were not measured.
    """
    names, believed, found = [], [], []
    for name in front.objectives:
        if name not in _MEASURED:
            continue
        values = [getattr(record, _MEASURED[name]) for record in records]
        if any(value is None for value, ok in zip(values, valid, strict=True) if ok):
            continue
        names.append(name)
        believed.append([c.values[OBJECTIVES[name].key] for c in chosen])
        found.append([np.inf if value is None else float(value) for value in values])
    shape = (len(names), len(chosen))
    return names, np.reshape(believed, shape).T, np.reshape(found, shape).T


def _objectives(candidate: Candidate) -> tuple[float, float]:
    return candidate.values["error_pct"], candidate.values["latency_ms"]


def _front_mask(points: NDArray[np.float64], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros(len(points), dtype=bool)
    if among.any():
        mask[np.flatnonzero(among)] = pareto.non_dominated_mask(points[among])
    return mask


def _row(
    candidate: Candidate, record: Measurement, *, on_predicted: bool, on_measured: bool
) -> VerifiedCandidate:
    trusted = record.status == "valid"
    return VerifiedCandidate(
        arch=candidate.arch,
        arch_id=candidate.architecture.id,
        error_pct=candidate.values["error_pct"],
        predicted_ms=candidate.values["latency_ms"],
        predicted_sd_ms=candidate.sd.get("latency_ms"),
        measured_ms=record.latency_ms if trusted else None,
        ci95_ms=record.ci95_ms if trusted else None,
        peak_memory_mib=record.peak_memory_mib,
        energy_mj=record.energy_mj,
        flags=record.flags,
        on_predicted_front=on_predicted,
        on_measured_front=on_measured,
        predicted_mj=candidate.values.get("energy_mj"),
    )
