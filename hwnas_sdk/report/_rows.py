"""Tables of the page as rows of ready text, so that the templates only lay out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hwnas_sdk.core.flags import INVALIDATING
from hwnas_sdk.core.types import VerifiedCandidate
from hwnas_sdk.report._front import anchor, valid_ms
from hwnas_sdk.report._text import (
    MISSING,
    decimals_for,
    energy_reason,
    explain,
    half_width,
    number,
    short_name,
    signed_pct,
)
from hwnas_sdk.report.cell import cell_svg
from hwnas_sdk.report.data import MeasuredModel, ProfileData, ReportData, RoundData


@dataclass(frozen=True, slots=True)
class FlagView:
    """A flag as a chip: its name, meaning and whether it makes the number unusable."""

    name: str
    meaning: str
    is_invalidating: bool


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One line of the table of candidates; "" where there is nothing to say."""

    anchor: str
    name: str
    arch: str
    sha256: str
    cell: Markup | None
    error: str
    predicted: str
    predicted_spread: str
    measured: str
    measured_spread: str
    is_valid: bool
    deviation: str
    memory: str
    energy: str
    verdict: str
    verdict_title: str
    verdict_css: str
    flags: tuple[FlagView, ...]


@dataclass(frozen=True, slots=True)
class RoundView:
    """One verified front as text."""

    label: str
    rows: tuple[CandidateView, ...]
    shared_flags: tuple[FlagView, ...]
    spearman: str
    kendall: str
    mape: str
    n_valid: int
    n_beaten: int
    n_tied_pairs: int
    hypervolume_predicted: str
    hypervolume_measured: str
    hypervolume_box: str


def flag_views(flags: Iterable[str], explained: Mapping[str, str]) -> tuple[FlagView, ...]:
    """Chips for `flags`, those that invalidate first."""
    views = [FlagView(f, explain(f, explained), f in INVALIDATING) for f in set(flags)]
    return tuple(sorted(views, key=lambda v: (not v.is_invalidating, v.name)))


def shared_flags(groups: Sequence[Sequence[str]]) -> frozenset[str]:
    """Informative flags that every record carries: said once instead of on each line."""
    if len(groups) < 2:
        return frozenset()
    return frozenset.intersection(*map(frozenset, groups)) - INVALIDATING.keys()


def _standing(c: VerifiedCandidate, value: float | None, word: str) -> tuple[str, str, str]:
    """What became of a candidate: short, in a sentence, and as a CSS class."""
    if value is None:
        return "invalid", "it has no valid measurement; the flags say why", "invalid"
    if c.on_measured_front:
        foreseen = "as predicted" if c.on_predicted_front else "which the prediction had missed"
        return "on the front", f"no other {word} network beats it, {foreseen}", "on"
    if c.on_predicted_front:
        return "beaten", f"on the predicted front, but beaten by another once {word}", "beaten"
    return "not on it", "neither on the predicted nor on this front", "off"


def round_view(data: ReportData, index: int) -> RoundView:
    """Texts of round `index`."""
    round_data: RoundData = data.rounds[index]
    verdict = round_data.verdict
    candidates = verdict.candidates
    valid = [valid_ms(c) for c in candidates]
    ms = decimals_for([*(c.predicted_ms for c in candidates), *valid])
    mib = decimals_for(c.peak_memory_mib for c in candidates) - 1
    mj = decimals_for(c.energy_mj for c in candidates)
    common = shared_flags([c.flags for c in candidates])
    rows = []
    for i, (c, value) in enumerate(zip(candidates, valid, strict=True)):
        off = None if value is None else 100.0 * (c.predicted_ms - value) / value
        text, sentence, css = _standing(c, value, data.measurement_origin)
        rows.append(
            CandidateView(
                anchor=anchor(index, i),
                name=short_name(c.arch),
                arch=c.arch,
                sha256=data.artifacts.get(c.arch, ""),
                cell=cell_svg(c.arch),
                error=number(c.error_pct, 2),
                predicted=number(c.predicted_ms, ms),
                predicted_spread=half_width(c.predicted_sd_ms, ms),
                measured=number(c.measured_ms, ms),
                measured_spread=half_width(c.ci95_ms, ms),
                is_valid=value is not None,
                deviation=signed_pct(off),
                memory=number(c.peak_memory_mib, mib),
                energy=number(c.energy_mj, mj),
                verdict=text,
                verdict_title=sentence,
                verdict_css=css,
                flags=flag_views([f for f in c.flags if f not in common], data.flags_explained),
            )
        )
    error_box, latency_box = verdict.hypervolume_reference
    return RoundView(
        label=round_data.label,
        rows=tuple(rows),
        shared_flags=flag_views(common, data.flags_explained),
        spearman=number(verdict.spearman, 3),
        kendall=number(verdict.kendall, 3),
        mape=MISSING if verdict.mape_pct is None else f"{verdict.mape_pct:.1f} %",
        n_valid=sum(value is not None for value in valid),
        n_beaten=len(verdict.dominated_after_measuring),
        n_tied_pairs=verdict.n_tied_pairs,
        hypervolume_predicted=number(verdict.hypervolume_predicted, 4),
        hypervolume_measured=number(verdict.hypervolume_measured, 4),
        hypervolume_box=f"{error_box:.4g} % error \N{MULTIPLICATION SIGN} {latency_box:.4g} ms",
    )


@dataclass(frozen=True, slots=True)
class ReferenceView:
    """One reference network of the profile; `bar_pct` is its share of the slowest."""

    name: str
    arch: str
    cell: Markup | None
    latency: str
    spread: str
    bar_pct: float


def reference_views(profile: ProfileData) -> tuple[ReferenceView, ...]:
    """Lines of the profile table, in the set's own order."""
    known = [v for v in profile.latency_ms if v is not None]
    ms, slowest = decimals_for(known), max(known, default=1.0)
    return tuple(
        ReferenceView(
            name=short_name(arch),
            arch=arch,
            cell=cell_svg(arch),
            latency=number(value, ms),
            spread=half_width(ci, ms),
            bar_pct=0.0 if value is None else round(100.0 * value / slowest, 1),
        )
        for arch, value, ci in zip(
            profile.architectures, profile.latency_ms, profile.ci95_ms, strict=True
        )
    )


@dataclass(frozen=True, slots=True)
class ModelView:
    """One measured network of a ``measure`` report."""

    name: str
    sha256: str
    cell: Markup | None
    origin: str
    is_valid: bool
    latency: str
    spread: str
    p90: str
    first: str
    load: str
    memory: str
    energy: str
    energy_reason: str
    n_samples: int
    flags: tuple[FlagView, ...]


def model_views(data: ReportData) -> tuple[ModelView, ...]:
    """Lines of the table of measured networks."""
    return tuple(_model_view(data, model) for model in data.models)


def _model_view(data: ReportData, model: MeasuredModel) -> ModelView:
    m = model.measurement
    ms = decimals_for([m.latency_ms])
    return ModelView(
        name=short_name(model.name),
        sha256=m.artifact_sha256,
        cell=cell_svg(model.name),
        origin=m.origin,
        is_valid=m.status == "valid",
        latency=number(m.latency_ms, ms),
        spread=half_width(m.ci95_ms, ms),
        p90=number(m.latency_p90_ms, ms),
        first=number(m.first_ms, ms),
        load=number(m.load_ms, 1),
        memory=number(m.peak_memory_mib, 1),
        energy=number(m.energy_mj, decimals_for([m.energy_mj])),
        energy_reason=energy_reason(m.energy_reason or data.energy_reason),
        n_samples=m.n_samples,
        flags=flag_views(m.flags, data.flags_explained),
    )
