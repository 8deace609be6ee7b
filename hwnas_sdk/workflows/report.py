"""From a stored run to the page a person reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import hwnas_sdk
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.types import DeviceSpec, Measurement, Verdict
from hwnas_sdk.report.data import (
    DriftPoint,
    HypervolumePoint,
    MeasuredModel,
    ProfileData,
    ReportData,
    ReportKind,
    RoundData,
)
from hwnas_sdk.report.html import render_report
from hwnas_sdk.store.sqlite import MeasurementStore, Run
from hwnas_sdk.workflows.fronts import verdict_from_mapping
from hwnas_sdk.workflows.loop import PROFILE_PREFIX, union_hypervolume
from hwnas_sdk.workflows.profile_file import profile_from_mapping

REPORTED = ("quickstart", "loop", "verify", "profile", "measure")


def write_run_report(store: MeasurementStore, run_id: str, path: Path) -> Path:
    """Write the HTML page of a run, all or nothing; returns the absolute path.

    Raises: DataError for an unknown run, one that is not finished or has nothing to show.
    """
    data = report_data(store, resolve_run(store, run_id))
    write_text_atomic(path, render_report(data))
    return path.resolve()


def report_data(store: MeasurementStore, run: Run) -> ReportData:
    """Gather what the page of `run` shows.

    Raises: DataError; see `write_run_report`.
    """
    if run.kind not in REPORTED:
        raise DataError(
            f"run {run.id} is a {run.kind!r} run; there is no page for that",
            code="no_report",
            hint=f"kinds with a page: {', '.join(REPORTED)}",
        )
    measurements = store.measurements(run_id=run.id)
    if run.finished_at is None or not measurements:
        raise DataError(
            f"run {run.id} ({run.kind}) is not finished",
            code="run_unfinished",
            hint="give the command that started it again; it continues where it stopped",
        )
    result: Mapping[str, Any] = run.result or {}
    verdicts = _verdicts(run.kind, result)
    spec = device_of_run(store, measurements[0].device_id)
    profile = result.get("profile") if run.kind in ("loop", "quickstart") else None
    if run.kind == "profile":
        profile = result
    models: tuple[MeasuredModel, ...] = ()
    if run.kind == "measure":
        models = tuple(_model(store, m) for m in measurements)
    settings = run.plan.get("settings", {})
    return ReportData(
        title=_title(run.kind, spec),
        run_id=run.id,
        kind=cast("ReportKind", run.kind),
        command=_command(run, spec),
        sdk_version=str(run.plan.get("sdk_version", hwnas_sdk.__version__)),
        created_at=run.created_at,
        device=asdict(spec),
        environment=measurements[0].environment,
        settings=settings,
        seed=run.seed,
        rounds=tuple(RoundData(verdict=v, label=f"Round {v.round}") for v in verdicts),
        measurement_origin=measurements[0].origin,
        profile=(
            ProfileData.from_profile(profile_from_mapping(profile, where=f"run {run.id}"))
            if profile
            else None
        ),
        drift=_drift(measurements),
        models=models,
        provenance=_provenance(result),
        artifacts=_artifacts(store, measurements),
        hypervolume=_hypervolume(verdicts),
        energy_reason=_energy_reason(spec, measurements),
        notes=_notes(measurements, result),
    )


def _verdicts(kind: str, result: Mapping[str, Any]) -> list[Verdict]:
    if kind == "verify":
        return [verdict_from_mapping(result)]
    return [verdict_from_mapping(data) for data in result.get("verdicts", ())]


def device_of_run(store: MeasurementStore, device_id: str) -> DeviceSpec:
    """The device that measurements of a run name."""
    return next(spec for spec in store.devices() if spec.id == device_id)


def _title(kind: str, spec: DeviceSpec) -> str:
    what = {
        "quickstart": "Best networks on",
        "loop": "Best networks on",
        "verify": "Verified networks on",
        "profile": "Profile of",
        "measure": "Measurements on",
    }[kind]
    return f"{what} {spec.name}"


def _command(run: Run, spec: DeviceSpec) -> str:
    """What to type to get this run again."""
    plan, search = run.plan, run.plan.get("search", {})
    settings = plan.get("settings", {})
    device = plan.get("device", spec.name)
    words = ["hwnas", run.kind]
    if run.kind == "profile":
        words += [device]
    elif run.kind == "verify":
        words += ["FRONT.json"]
    elif run.kind == "measure":
        words += [shlex.quote(target) for target in plan.get("targets", ["TARGET..."])]
        words += ["--folded"] if plan.get("folded") else []
        words += [f"--fix-dim {name}={n}" for name, n in plan.get("fixed_dims", {}).items()]
        words += [f"--batch {settings['batch']}"] if settings.get("batch", 1) != 1 else []
        words += ["--energy"] if settings.get("energy") else []
    if run.kind != "profile":
        words += ["--device", shlex.quote(device)]
    if run.kind == "quickstart":
        return " ".join([*words, f"--minutes {plan['board_s'] / 60:g}", f"--seed {run.seed}"])
    words += [f"--settings {settings.get('name', 'quick')}"]
    if settings.get("threads", 1) != 1:
        words += [f"--threads {settings['threads']}"]
    if run.kind in ("profile", "loop"):
        words += [f"--references {plan['references']}"]
    if run.kind == "loop":
        words += [
            f"--rounds {plan['rounds']}",
            f"--method {search['method']}",
            f"--objectives {','.join(search['objectives'])}",
            f"--candidates {search['candidates']}",
            "--folded" if plan["folded"] else "--unfolded",
        ]
        for option in ("hypernetwork", "ranker", "prior"):
            if search.get(option):
                words += [f"--{option} {shlex.quote(search[option])}"]
        optional = {
            "--max-latency-ms": search["max_latency_ms"],
            "--max-memory-mib": search["max_memory_mib"],
            "--board-minutes": plan["board_s"] and plan["board_s"] / 60,
            "--min-gain": plan["gain_eps"] or None,
        }
        words += [f"{option} {value:g}" for option, value in optional.items() if value]
    if run.seed is not None and run.kind != "verify":
        words += [f"--seed {run.seed}"]
    return " ".join(words)


def _drift(measurements: Sequence[Measurement]) -> tuple[DriftPoint, ...]:
    """Sentinel blocks of all jobs, once per job (its networks share them)."""
    jobs: dict[str, Measurement] = {}
    for m in measurements:
        if m.details.get("sentinel_ms"):
            jobs.setdefault(str(m.details.get("job", m.measured_at)), m)
    ordered = sorted(jobs.items(), key=lambda entry: entry[1].measured_at)
    if not ordered:
        return ()
    start = datetime.fromisoformat(ordered[0][1].measured_at)
    points = []
    for job, m in ordered:
        at_s = (datetime.fromisoformat(m.measured_at) - start).total_seconds()
        pairs = zip(m.details["sentinel_t_s"], m.details["sentinel_ms"], strict=True)
        points += [DriftPoint(t_s=at_s + t, sentinel_ms=ms, job=job) for t, ms in pairs]
    return tuple(points)


def _model(store: MeasurementStore, m: Measurement) -> MeasuredModel:
    blocks = tuple(tuple((block / 1e6).tolist()) for block in store.samples_ns(m))
    return MeasuredModel(
        name=store.architecture_text(m.arch_id) or m.arch_id, measurement=m, blocks_ms=blocks
    )


def _provenance(result: Mapping[str, Any]) -> dict[str, str]:
    known = result.get("front_provenance", {})
    return {key: str(value) for key, value in known.items()}


def _artifacts(store: MeasurementStore, measurements: Sequence[Measurement]) -> dict[str, str]:
    """File of each candidate (the last form measured, which is the one verified)."""
    ordered = sorted(measurements, key=lambda m: not m.item.startswith(PROFILE_PREFIX))
    return {
        store.architecture_text(m.arch_id) or m.arch_id: m.artifact_sha256
        for m in reversed(ordered)
        if m.artifact_sha256
    }


def _hypervolume(verdicts: Sequence[Verdict]) -> tuple[HypervolumePoint, ...]:
    return tuple(
        HypervolumePoint(
            label=f"Round {verdict.round}",
            predicted=verdict.hypervolume_predicted,
            measured=verdict.hypervolume_measured,
            measured_so_far=union_hypervolume(verdicts[: i + 1]),
            n_so_far=sum(v.n_measured for v in verdicts[: i + 1]),
        )
        for i, verdict in enumerate(verdicts)
    )


def _energy_reason(spec: DeviceSpec, measurements: Sequence[Measurement]) -> str:
    reasons = {m.energy_reason for m in measurements if m.energy_reason}
    return spec.power_reason or ", ".join(sorted(reasons)) or "energy was not asked for"


def _notes(measurements: Sequence[Measurement], result: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    invalid = sum(m.status == "invalid" for m in measurements)
    if invalid:
        notes.append(
            f"{invalid} of {len(measurements)} measurements were invalid and are in no figure; "
            "they were taken again up to twice"
        )
    if result.get("stopped") == "board time":
        notes.append("the run stopped because its board time was spent")
    if result.get("stopped") == "no gain":
        notes.append("the run stopped because a round gained no more hypervolume")
    return tuple(notes)


def resolve_run(store: MeasurementStore, reference: str) -> Run:
    """Run of an id or a unique start of one; ``last`` is the newest finished one with a page.

    Raises: DataError for an unknown run.
    """
    if reference == "last":
        finished = [r for r in store.runs() if r.finished_at and r.kind in REPORTED]
        if finished:
            return finished[-1]
    return store.get_run(reference)
