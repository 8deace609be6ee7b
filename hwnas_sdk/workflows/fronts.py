"""Fronts and verdicts as JSON: what the store keeps and the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.types import Architecture, Candidate, ParetoFront, Verdict, VerifiedCandidate


def front_to_mapping(front: ParetoFront) -> dict[str, Any]:
    """Plain JSON object; `front_from_mapping` reads it back."""
    head = asdict(front)
    head["objectives"] = list(front.objectives)
    head["candidates"] = [
        {
            "arch": c.arch,
            "genotype": list(c.architecture.genotype),
            "values": dict(c.values),
            "sd": dict(c.sd),
            "origin": dict(c.origin),
        }
        for c in front.candidates
    ]
    return head


def front_from_mapping(data: Mapping[str, Any]) -> ParetoFront:
    """Inverse of `front_to_mapping`.

    Raises: DataError when a key is missing or wrong.
    """
    try:
        candidates = tuple(
            Candidate(
                architecture=Architecture(data["space"], tuple(int(g) for g in row["genotype"])),
                arch=row["arch"],
                values=dict(row["values"]),
                sd=dict(row["sd"]),
                origin=dict(row["origin"]),
            )
            for row in data["candidates"]
        )
        values = {**data, "candidates": candidates, "objectives": tuple(data["objectives"])}
        return ParetoFront(**values)
    except (KeyError, TypeError, ValueError) as exc:
        raise DataError(
            f"not a front of this version: {exc}",
            code="bad_front",
            hint="write it again with `hwnas search -o FRONT.json`",
        ) from None


def read_front(path: Path) -> ParetoFront:
    """Front of a file that `hwnas search -o` wrote.

    Raises: DataError when it cannot be read or is no front.
    """
    try:
        return front_from_mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not JSON"
        raise DataError(
            f"cannot read the front {path}: {reason}",
            code="bad_front",
            hint="write one with `hwnas search -o FRONT.json`",
        ) from None


def front_rows(front: ParetoFront) -> list[dict[str, Any]]:
    """Rows of the command line's ``front``: arch, error_pct, latency_ms, energy_mj, origin."""
    return [
        {
            "arch": c.arch,
            "error_pct": c.values.get("error_pct"),
            "latency_ms": c.values.get("latency_ms"),
            "latency_sd_ms": c.sd.get("latency_ms"),
            "energy_mj": c.values.get("energy_mj"),
            "peak_memory_mib": c.values.get("memory_mib"),
            "origin": "predicted",
        }
        for c in front.candidates
    ]


def verdict_to_mapping(verdict: Verdict) -> dict[str, Any]:
    """Plain JSON object of a verdict; keys of the command line's ``verify``."""
    data = asdict(verdict)
    data["candidates"] = [{**asdict(row), "flags": list(row.flags)} for row in verdict.candidates]
    data["hypervolume_reference"] = list(verdict.hypervolume_reference)
    data["dominated_after_measuring"] = list(verdict.dominated_after_measuring)
    data["objectives"] = list(verdict.objectives)
    return data


def verdict_from_mapping(data: Mapping[str, Any]) -> Verdict:
    """Inverse of `verdict_to_mapping`.

    Raises: DataError when a key is missing or wrong.
    """
    try:
        rows = tuple(
            VerifiedCandidate(**{**row, "flags": tuple(row["flags"])}) for row in data["candidates"]
        )
        error, latency = data["hypervolume_reference"]
        return Verdict(
            **{
                **data,
                "candidates": rows,
                "hypervolume_reference": (float(error), float(latency)),
                "dominated_after_measuring": tuple(data["dominated_after_measuring"]),
                # Verdicts of older versions had these two.
                "objectives": tuple(data.get("objectives", ("error", "latency"))),
            }
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DataError(f"not a stored verdict: {exc}", code="bad_verdict") from None
