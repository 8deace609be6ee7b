"""The verified front in words: which network to take, and how far the prediction can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwnas_sdk.core.flags import status_of
from hwnas_sdk.core.types import VerifiedCandidate
from hwnas_sdk.report.data import ReportData


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate with a valid measurement and where it stands on the page."""

    candidate: VerifiedCandidate
    measured_ms: float
    round_index: int
    position: int

    @property
    def anchor(self) -> str:
        """Identity of its row in the table."""
        return anchor(self.round_index, self.position)


def anchor(round_index: int, position: int) -> str:
    """Identity of a candidate's table row."""
    return f"c{round_index + 1}-{position + 1}"


def valid_ms(candidate: VerifiedCandidate) -> float | None:
    """Latency of a candidate if it may be used: present, finite, no invalidating flag."""
    value = candidate.measured_ms
    if value is None or not math.isfinite(value) or status_of(candidate.flags) == "invalid":
        return None
    return value


def measured_candidates(data: ReportData) -> list[Measured]:
    """Every candidate with a valid measurement; of one measured in several rounds, the latest."""
    latest: dict[str, Measured] = {}
    for r, round_data in enumerate(data.rounds):
        for i, candidate in enumerate(round_data.verdict.candidates):
            value = valid_ms(candidate)
            if value is not None:
                latest[candidate.arch_id] = Measured(candidate, value, r, i)
    return list(latest.values())


def staircase(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (latency_ms, error_pct) no other one beats, fastest first."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] < points[kept[-1]][1]:
            kept.append(i)
    return kept


_BEYOND = {"energy": "energy_mj", "memory": "peak_memory_mib"}
"""Objectives beyond error and latency, and where a candidate has them."""


def more_objectives(data: ReportData) -> tuple[str, ...]:
    """Objectives beyond error and latency by which every round's front was judged."""
    verdicts = [round_data.verdict for round_data in data.rounds]
    return tuple(
        name for name in _BEYOND if verdicts and all(name in v.objectives for v in verdicts)
    )


def verified_front(data: ReportData) -> list[Measured]:
    """The measured front of the whole run, fastest first.

    One round: as its verdict says. Several: the members of the rounds' fronts that no other one
    beats in every objective all rounds had. Networks that are equal in all of them count once.
    """
    front = [m for m in measured_candidates(data) if m.candidate.on_measured_front]
    if len(data.rounds) > 1:
        keys = [_BEYOND[name] for name in more_objectives(data)]
        points = {
            m.anchor: (
                m.measured_ms,
                m.candidate.error_pct,
                *(float(getattr(m.candidate, key)) for key in keys),
            )
            for m in front
        }
        front = [
            m
            for i, m in enumerate(front)
            if not any(
                _beats(points[other.anchor], points[m.anchor], or_equal=j < i)
                for j, other in enumerate(front)
                if j != i
            )
        ]
    return sorted(front, key=lambda m: (m.measured_ms, m.candidate.error_pct))


def _beats(a: tuple[float, ...], b: tuple[float, ...], *, or_equal: bool) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and (a != b or or_equal)


def _plane(front: Sequence[Measured]) -> list[Measured]:
    """Members of the front that are on it in latency and error alone, fastest first."""
    points = [(m.measured_ms, m.candidate.error_pct) for m in front]
    return [front[i] for i in staircase(points)]


def knee(front: Sequence[Measured]) -> Measured | None:
    """The front's point furthest below the line between its two ends; None below three points.

    Both axes are scaled to the front's own range first, so units do not matter.
    """
    if len(front) < 3:
        return None
    fast, accurate = front[0], front[-1]
    span_ms = accurate.measured_ms - fast.measured_ms
    span_pct = fast.candidate.error_pct - accurate.candidate.error_pct
    if span_ms <= 0 or span_pct <= 0:
        return None

    def gain(point: Measured) -> float:
        x = (point.measured_ms - fast.measured_ms) / span_ms
        y = (point.candidate.error_pct - accurate.candidate.error_pct) / span_pct
        return 1.0 - x - y

    best = max(front[1:-1], key=gain)
    return best if gain(best) > 0 else None


@dataclass(frozen=True, slots=True)
class Pick:
    """One recommended network: why, and which."""

    role: str
    why: str
    point: Measured


def picks(data: ReportData) -> list[Pick]:
    """Fastest, most frugal, knee and most accurate network of the verified front, no repeats."""
    front = verified_front(data)
    if not front:
        return []
    if len(front) == 1:
        return [Pick("Best", "no other measured network is faster or more accurate", front[0])]
    chosen = [Pick("Fastest", f"lowest {data.measurement_origin} latency of the front", front[0])]
    if "energy" in more_objectives(data):
        frugal = min(front, key=lambda m: (m.candidate.energy_mj or math.inf, m.measured_ms))
        if frugal is not front[0]:
            chosen.append(Pick("Least energy", "lowest energy of the front", frugal))
    accurate = min(front, key=lambda m: (m.candidate.error_pct, m.measured_ms))
    middle = knee(_plane(front))
    if middle is not None and all(middle is not pick.point for pick in chosen):
        chosen.append(
            Pick("Best compromise", "the knee: beyond it, accuracy costs most time", middle)
        )
    chosen.append(Pick("Most accurate", "lowest predicted error of the front", accurate))
    return chosen
