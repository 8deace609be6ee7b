"""One offline HTML page per run: no script, no font, no request; light and dark."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from markupsafe import Markup

from hwnas_sdk.core.files import write_bytes_atomic
from hwnas_sdk.report import _run_plots, plots
from hwnas_sdk.report._answer import answer
from hwnas_sdk.report._front import measured_candidates, more_objectives
from hwnas_sdk.report._page import both_widths, render_template
from hwnas_sdk.report._rows import (
    FlagView,
    flag_views,
    model_views,
    reference_views,
    round_view,
)
from hwnas_sdk.report._text import energy_reason, flattened
from hwnas_sdk.report.cell import DRAWN, legend_svg
from hwnas_sdk.report.compare import render_comparison
from hwnas_sdk.report.data import HypervolumePoint, ReportData

__all__ = ["render_comparison", "render_report", "write_report"]

MAX_DISTRIBUTIONS = 6
"""Networks of a ``measure`` report whose samples are drawn; a sweep would make a huge page."""

PROVENANCE_DEFAULTS = {
    "error_pct": "predicted by a model; no network of this report was trained and tested",
    "predicted_ms": "predicted by the latency model before the candidates were measured",
}

KIND_TITLES = {
    "quickstart": "Quickstart",
    "loop": "Measure-and-learn loop",
    "verify": "Verified front",
    "profile": "Device profile",
    "measure": "Measurement",
}


def render_report(data: ReportData) -> str:
    """The page as text; equal data gives equal bytes."""
    candidates = [c for r in data.rounds for c in r.verdict.candidates]
    return render_template(
        "report.html.j2",
        data=data,
        kind_title=KIND_TITLES[data.kind],
        answer=answer(data),
        plots=_plots(data),
        rounds=[round_view(data, i) for i in range(len(data.rounds))],
        references=() if data.profile is None else reference_views(data.profile),
        models=model_views(data),
        n_undrawn=max(0, len(data.models) - MAX_DISTRIBUTIONS),
        flags=_all_flags(data),
        more_objectives=more_objectives(data),
        operators=[(legend_svg(name), op.words) for name, op in DRAWN.items()],
        hypervolume=_hypervolume(data),
        provenance={**PROVENANCE_DEFAULTS, **data.provenance} if data.rounds else data.provenance,
        energy_reason=_energy_reason(data),
        energy_missing=any(c.energy_mj is None for c in candidates),
        memory_missing=any(c.peak_memory_mib is None for c in candidates),
        models_energy_missing=any(m.measurement.energy_mj is None for m in data.models),
        drift_limit_pct=_run_plots.drift_limit_pct(str(data.device.get("machine", "bare"))),
        device_rows=flattened(data.device),
        environment_rows=flattened(data.environment),
        settings_rows=flattened(data.settings),
    )


def write_report(data: ReportData, path: Path) -> Path:
    """Render and write the page; a reader never sees half of it.

    Raises: DataError when the file cannot be written.
    """
    return write_bytes_atomic(path, render_report(data).encode())


def _plots(data: ReportData) -> dict[str, Markup]:
    drawn: dict[str, Markup] = {}
    for i in range(len(data.rounds)):
        if data.rounds[i].verdict.candidates:
            drawn[f"front{i}"] = both_widths(partial(plots.front_svg, data, i), f"front{i}")
    measured = measured_candidates(data)
    if len(data.rounds) > 1 and measured:
        drawn["union"] = both_widths(partial(plots.union_svg, data, measured), "union")
    if measured and "energy" in more_objectives(data):
        drawn["energy"] = both_widths(partial(plots.energy_svg, data, measured), "energy")
    if measured:
        drawn["scatter"] = both_widths(partial(plots.scatter_svg, data), "scatter")
    if data.drift:
        drawn["drift"] = both_widths(partial(_run_plots.drift_svg, data), "drift")
    if len(data.rounds) > 1:
        drawn["hypervolume"] = both_widths(
            partial(_run_plots.hypervolume_svg, _hypervolume(data), data.measurement_origin), "hv"
        )
    for i, model in enumerate(data.models[:MAX_DISTRIBUTIONS]):
        blocks = [block for block in model.blocks_ms if block]
        if blocks:
            drawn[f"model{i}"] = both_widths(
                partial(_run_plots.distribution_svg, blocks), f"model{i}"
            )
    return drawn


def _hypervolume(data: ReportData) -> tuple[HypervolumePoint, ...]:
    return data.hypervolume or tuple(
        HypervolumePoint(
            label=r.label,
            predicted=r.verdict.hypervolume_predicted,
            measured=r.verdict.hypervolume_measured,
        )
        for r in data.rounds
    )


def _all_flags(data: ReportData) -> tuple[FlagView, ...]:
    found = [f for r in data.rounds for c in r.verdict.candidates for f in c.flags]
    found += [f for m in data.models for f in m.measurement.flags]
    found += data.profile.flags if data.profile else ()
    return flag_views(found, data.flags_explained)


def _energy_reason(data: ReportData) -> str:
    return energy_reason(data.energy_reason or str(data.device.get("power_reason") or ""))
