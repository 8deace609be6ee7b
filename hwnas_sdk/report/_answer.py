"""What the page says first: the answer in words, with numbers and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from hwnas_sdk.report._front import (
    Pick,
    measured_candidates,
    more_objectives,
    picks,
    verified_front,
)
from hwnas_sdk.report._text import (
    counted,
    decimals_for,
    half_width,
    listed,
    millijoules,
    milliseconds,
    number,
    short_name,
    times,
)
from hwnas_sdk.report.cell import cell_svg
from hwnas_sdk.report.data import ReportData


@dataclass(frozen=True, slots=True)
class PickView:
    """A recommended network as a card."""

    role: str
    why: str
    name: str
    anchor: str
    cell: Markup | None
    latency: str
    spread: str
    error: str
    accuracy: str
    energy: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Opening of the page: one sentence, cards, and sentences on how far to trust them."""

    headline: str
    picks: tuple[PickView, ...]
    remarks: tuple[str, ...]


def answer(data: ReportData) -> Answer:
    """The answer of any kind of report."""
    if data.rounds:
        return _front_answer(data)
    if data.models:
        return Answer(_models_headline(data), (), ())
    if data.profile is not None:
        return Answer(_profile_headline(data), (), ())
    return Answer("This run holds no measurement yet.", (), ())


def _device(data: ReportData) -> str:
    return str(data.device.get("name") or data.device.get("id") or "this device")


def _front_answer(data: ReportData) -> Answer:
    measured, front = measured_candidates(data), verified_front(data)
    everything = {c.arch_id for r in data.rounds for c in r.verdict.candidates}
    word, device = data.measurement_origin, _device(data)
    if not measured:
        n = counted(len(everything), "candidate")
        return Answer(
            f"No answer yet: none of the {n} has a valid measurement on {device}.",
            (),
            ("What is drawn below is prediction only; the flags in the table say why.",),
        )
    if len(measured) == 1:
        only = measured[0]
        shown = milliseconds(only.measured_ms, only.candidate.ci95_ms)
        headline = f"One network {word} on {device}: {shown}; nothing to compare it with yet."
        views = tuple(_pick_view(pick) for pick in picks(data))
        return Answer(headline, views, tuple(_remarks(data, [], len(everything) - 1)))
    verb = "is" if len(front) == 1 else "are"
    trade = "trade-off" if len(front) == 1 else "trade-offs"
    headline = (
        f"Of {counted(len(measured), 'network')} {word} on {device}, {len(front)} {verb} the best "
        f"{trade} between predicted accuracy and {word} "
        f"{listed(['latency', *more_objectives(data)])}."
    )
    chosen = picks(data)
    return Answer(
        headline,
        tuple(_pick_view(pick) for pick in chosen),
        tuple(_remarks(data, chosen, len(everything) - len(measured))),
    )


def _pick_view(pick: Pick) -> PickView:
    c = pick.point.candidate
    return PickView(
        role=pick.role,
        why=pick.why,
        name=short_name(c.arch),
        anchor=pick.point.anchor,
        cell=cell_svg(c.arch),
        latency=milliseconds(pick.point.measured_ms),
        spread=half_width(c.ci95_ms, decimals_for([pick.point.measured_ms])),
        error=f"{number(c.error_pct, 2)} %",
        accuracy=f"{number(100.0 - c.error_pct, 2)} %",
        energy=millijoules(c.energy_mj),
    )


def _remarks(data: ReportData, chosen: list[Pick], n_invalid: int) -> list[str]:
    remarks = []
    if len(chosen) > 1:
        accurate, cheaper = chosen[-1].point, chosen[-2].point
        ratio = accurate.measured_ms / cheaper.measured_ms
        points = cheaper.candidate.error_pct - accurate.candidate.error_pct
        remarks.append(
            f"{chosen[-2].role} {short_name(cheaper.candidate.arch)} runs {times(ratio)} as fast "
            f"as the most accurate network and gives up {points:.2f} percentage points of "
            "predicted accuracy."
        )
    verdict, word = data.rounds[-1].verdict, data.measurement_origin
    where = f" ({data.rounds[-1].label})" if len(data.rounds) > 1 else ""
    if verdict.spearman is not None:
        off = "" if verdict.mape_pct is None else f", {verdict.mape_pct:.1f} % off on average"
        remarks.append(
            f"Latency prediction{where}: rank correlation with the {word} values "
            f"{verdict.spearman:.3f} (1 is perfect){off}."
        )
    if verdict.energy_spearman is not None and verdict.energy_mape_pct is not None:
        remarks.append(
            f"Energy prediction{where}: rank correlation {verdict.energy_spearman:.3f}, "
            f"{verdict.energy_mape_pct:.1f} % off on average."
        )
    n_beaten = len(verdict.dominated_after_measuring)
    if n_beaten:
        remarks.append(
            f"Measuring mattered: {counted(n_beaten, 'network')} that the prediction had put on "
            f"the front{where} turned out to be beaten by another."
        )
    if n_invalid:
        remarks.append(
            f"{counted(n_invalid, 'candidate')} without a valid measurement: listed and marked, "
            "not counted above."
        )
    return remarks


def _profile_headline(data: ReportData) -> str:
    assert data.profile is not None
    known = [v for v in data.profile.latency_ms if v is not None]
    n = len(data.profile.architectures)
    if not known:
        return f"None of the {counted(n, 'reference network')} has a valid measurement."
    return (
        f"{len(known)} of {counted(n, 'reference network')} {data.profile.origin} on "
        f"{_device(data)}: from {milliseconds(min(known))} to {milliseconds(max(known))}."
    )


def _models_headline(data: ReportData) -> str:
    device = _device(data)
    if len(data.models) == 1:
        m, name = data.models[0].measurement, short_name(data.models[0].name)
        if m.latency_ms is None or m.status == "invalid":
            return (
                f"{name} has no valid measurement on {device}: {', '.join(m.flags) or 'no flag'}."
            )
        return f"{name} takes {milliseconds(m.latency_ms, m.ci95_ms)} on {device} ({m.origin})."
    good = [
        m.measurement.latency_ms
        for m in data.models
        if m.measurement.latency_ms is not None and m.measurement.status == "valid"
    ]
    text = f"{len(good)} of {counted(len(data.models), 'network')} with a valid latency on {device}"
    return (
        f"{text}: {milliseconds(min(good))} to {milliseconds(max(good))}." if good else f"{text}."
    )
