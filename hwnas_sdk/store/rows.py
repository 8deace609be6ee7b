"""Between dataclasses and table rows. Text columns hold canonical JSON, never a pickle."""

from __future__ import annotations

import json
import math
import operator
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import canonical_json
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import DeviceSpec, Measurement, Origin

MEASUREMENT_COLUMNS = tuple(field.name for field in fields(Measurement))
_JSON_COLUMNS = ("flags", "environment", "details")
_POSITIVE = ("latency_ms", "latency_p90_ms", "energy_mj", "peak_memory_mib")
_NOT_NEGATIVE = ("latency_iqr_ms", "ci95_ms", "first_ms", "load_ms")
_NUMBERS = (*_POSITIVE, *_NOT_NEGATIVE, "energy_net_mj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One piece of work: what was asked, when, and what came out.

    Attributes:
        id: 16 hex digits.
        kind: profile, measure, loop, ...
        plan: what was asked, with seed and versions.
        plan_hash: SHA-256 of the plan's canonical JSON.
        seed: the plan's ``seed`` where it has an integer one.
        created_at, finished_at: UTC, ISO 8601; `finished_at` is None while it is unfinished.
        result: what `finish_run` was given.
        resumed: whether `start_run` found it instead of making it.
    """

    id: str
    kind: str
    plan: Mapping[str, Any]
    plan_hash: str
    seed: int | None
    created_at: str
    finished_at: str | None = None
    result: Mapping[str, Any] | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A fitted predictor: its card, and the hash of its weights."""

    id: str
    name: str
    kind: str
    card: Mapping[str, Any]
    weights_sha256: str
    path: str | None
    created_at: str


def to_json(value: Any, *, what: str) -> str:
    """Canonical JSON of `value`.

    Raises: DataError `bad_measurement` for NaN, infinities and objects JSON does not know.
    """
    try:
        text = canonical_json(value)
        text.encode()  # lone surrogates cannot be stored
    except (TypeError, ValueError, RecursionError) as exc:
        raise DataError(f"{what} cannot be stored as JSON: {exc}", code="bad_measurement") from exc
    return text


def measurement_row(measurement: Measurement) -> dict[str, Any]:
    """Column values of a measurement; `status` is derived here, once.

    Raises: DataError `bad_measurement` that names the field.
    """
    row: dict[str, Any] = {name: getattr(measurement, name) for name in MEASUREMENT_COLUMNS}
    what = f"measurement of {measurement.arch_id} on {measurement.device_id}"
    for name in _NUMBERS:
        row[name] = _number(row[name], name, what)
    try:
        row["n_samples"] = operator.index(measurement.n_samples)
        row["attempt"] = operator.index(measurement.attempt)
        row["status"] = measurement.status
    except (TypeError, ValueError) as exc:
        raise _bad(what, str(exc)) from exc
    if row["n_samples"] < 0 or row["attempt"] < 1 or row["attempt"] >= 1 << 63:
        raise _bad(what, "n_samples must be at least 0 and attempt at least 1")
    if measurement.origin not in get_args(Origin):
        raise _bad(what, f"unknown origin {measurement.origin!r}")
    for name in ("run_id", "item"):
        if not row[name]:
            raise _bad(what, f"{name} is empty; a measurement belongs to an item of a run")
    row["artifact_sha256"] = row["artifact_sha256"] or None
    row["flags"] = to_json(list(measurement.flags), what=f"flags of {what}")
    row["environment"] = to_json(dict(measurement.environment), what=f"environment of {what}")
    row["details"] = to_json(dict(measurement.details), what=f"details of {what}")
    for name, value in row.items():
        if isinstance(value, str) and name not in _JSON_COLUMNS:
            _storable(value, name, what)
    return row


def measurement_of(row: sqlite3.Row) -> Measurement:
    """Inverse of `measurement_row`."""
    values = {name: row[name] for name in MEASUREMENT_COLUMNS}
    values["artifact_sha256"] = values["artifact_sha256"] or ""
    values["flags"] = tuple(json.loads(values["flags"]))
    values["environment"] = json.loads(values["environment"])
    values["details"] = json.loads(values["details"])
    return Measurement(**values)


def device_row(spec: DeviceSpec) -> dict[str, Any]:
    """Column values of a device."""
    row = {field.name: getattr(spec, field.name) for field in fields(DeviceSpec)}
    row["runtimes"] = to_json(dict(spec.runtimes), what=f"runtimes of {spec.id}")
    row["details"] = to_json(dict(spec.details), what=f"details of {spec.id}")
    return row


def device_of(row: sqlite3.Row) -> DeviceSpec:
    """Inverse of `device_row`."""
    values = {field.name: row[field.name] for field in fields(DeviceSpec)}
    values["runtimes"] = json.loads(values["runtimes"])
    values["details"] = json.loads(values["details"])
    return DeviceSpec(**values)


def settings_of(content: str) -> MeasureSettings:
    """Settings from their stored JSON.

    Raises: DataError `schema_too_new` when they have fields this program does not know.
    """
    try:
        return MeasureSettings(**json.loads(content))
    except TypeError as exc:
        raise DataError(
            f"stored measurement settings are from another version: {exc}",
            code="schema_too_new",
            hint="upgrade hwnas-sdk",
        ) from exc


def run_of(row: sqlite3.Row, *, resumed: bool = False) -> Run:
    """Run from its row."""
    return Run(
        id=row["id"],
        kind=row["kind"],
        plan=json.loads(row["plan"]),
        plan_hash=row["plan_hash"],
        seed=row["seed"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        result=None if row["result"] is None else json.loads(row["result"]),
        resumed=resumed,
    )


def model_of(row: sqlite3.Row) -> ModelRecord:
    """Model from its row."""
    values = {field.name: row[field.name] for field in fields(ModelRecord)}
    return ModelRecord(**{**values, "card": json.loads(values["card"])})


def _number(value: Any, name: str, what: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _bad(what, f"{name} = {value!r} is not a number") from exc
    # SQLite would quietly turn NaN into NULL, that is, "not measured".
    if not math.isfinite(number):
        raise _bad(what, f"{name} = {number}; what was not measured is None")
    if (name in _POSITIVE and number <= 0) or (name in _NOT_NEGATIVE and number < 0):
        raise _bad(what, f"{name} = {number:g}; what was not measured is None")
    return number


def _storable(text: str, name: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise _bad(what, f"{name} is not text") from exc


def _bad(what: str, reason: str) -> DataError:
    printable = what.encode("utf-8", "backslashreplace").decode()
    return DataError(f"{printable} cannot be stored: {reason}", code="bad_measurement")
