"""The pictures of a report. matplotlib is imported inside; figures are objects, never pyplot state.

Every function takes plain data and gives an inline SVG. Prediction is always hollow, orange and
dashed; measurement always filled and solid.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from hwnas_sdk.core.files import write_bytes_atomic
from hwnas_sdk.core.types import VerifiedCandidate
from hwnas_sdk.report._figure import (
    MARKERS,
    WIDE_IN,
    draw_staircase,
    finish,
    identity,
    new_figure,
    scale_axis,
    with_scale,
)
from hwnas_sdk.report._front import Measured, anchor, picks, valid_ms, verified_front
from hwnas_sdk.report._svg import LIGHT, TOKENS, drawing, inline_svg
from hwnas_sdk.report._text import millijoules, milliseconds, short_name, signed_pct
from hwnas_sdk.report.data import ReportData, RoundData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# --- one round: predicted against measured ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    shape: str
    size: float
    role: str
    text: str


def _look(c: VerifiedCandidate, word: str) -> _Look:
    """Marker of a candidate; its shape alone already tells what became of it."""
    if valid_ms(c) is None:
        return _Look("x", 8.5, "invalid", "no valid measurement")
    if c.on_measured_front:
        return _Look("o", 7, "measured", f"{word}, on the front")
    if c.on_predicted_front:
        return _Look("X", 7, "beaten", f"beaten once {word}")
    return _Look("s", 5, "beaten", f"{word}, not on the front")


def _draw_round(
    axes: Axes, round_data: RoundData, round_index: int, theme: Mapping[str, str], word: str
) -> dict[str, str]:
    """Everything of one round; returns the tool tips by gid."""
    candidates = round_data.verdict.candidates
    tips: dict[str, str] = {}
    rows = [(c, v) for c in candidates if (v := valid_ms(c)) is not None]
    predicted = [(c.predicted_ms, c.error_pct) for c in candidates]
    measured = [(v, c.error_pct) for c, v in rows]
    dashes, orange, blue = (0, (4, 2.5)), theme["predicted"], theme["measured"]
    draw_staircase(axes, predicted, color=orange, ls=dashes, lw=1.4, label="predicted front")
    axes.plot(
        [x for x, _ in predicted], [y for _, y in predicted], "o", ms=5.5, mfc="none", mec=orange,
        mew=1.2, label="predicted", zorder=3,
    )  # fmt: skip
    draw_staircase(axes, measured, color=blue, lw=1.8, label=f"{word} front")
    heights = [y for _, y in measured]
    axes.hlines(
        heights, [c.predicted_ms for c, _ in rows], [v for _, v in rows], color=theme["beaten"],
        lw=0.9, zorder=2,
    )  # fmt: skip
    if rows:
        axes.errorbar(
            [v for v, _ in measured], heights, xerr=[c.ci95_ms or 0.0 for c, _ in rows], ls="none",
            color=blue, lw=1.1, capsize=2, zorder=3,
        )  # fmt: skip
    named: set[str] = set()
    for i, c in enumerate(candidates):
        look = _look(c, word)
        value = valid_ms(c)
        x = c.predicted_ms if value is None else value
        shown = (
            "no valid measurement" if value is None else f"{word} {milliseconds(value, c.ci95_ms)}"
        )
        tips[f"pt{i}"] = f"{short_name(c.arch)}: predicted {milliseconds(c.predicted_ms)}, {shown}"
        (mark,) = axes.plot(
            [x], [c.error_pct], look.shape, ms=look.size, color=theme[look.role], gid=f"pt{i}",
            mec=theme[look.role if value is None else "panel"], mew=1.8 if value is None else 0.6,
            label=f"_{look.text}" if look.text in named else look.text, zorder=4,
        )  # fmt: skip
        named.add(look.text)
        mark.set_url(f"#{anchor(round_index, i)}")
    return tips


def _annotate(
    axes: Axes, data: ReportData, theme: Mapping[str, str], at_x: Mapping[str, float]
) -> None:
    """Name the recommended networks beside their points; `at_x` is where, by anchor."""
    places = {"Fastest": (9, 5, "left"), "Most accurate": (4, -15, "right")}
    names = {"Best compromise": "knee"}
    for pick in picks(data):
        dx, dy, align = places.get(pick.role, (-7, -13, "right"))
        at = (at_x[pick.point.anchor], pick.point.candidate.error_pct)
        axes.annotate(
            names.get(pick.role, pick.role.lower()), at,
            xytext=(dx, dy), textcoords="offset points", ha=align, fontsize=8.5,
            color=theme["ink"], fontweight="bold", zorder=6,
        )  # fmt: skip


def _front_figure(
    data: ReportData,
    round_index: int,
    theme: Mapping[str, str],
    width_in: float,
    *,
    title: str = "",
) -> tuple[Figure, dict[str, str]]:
    round_data, word = data.rounds[round_index], data.measurement_origin
    figure, axes = new_figure(width_in, 4.5)
    tips = _draw_round(axes, round_data, round_index, theme, word)
    candidates = round_data.verdict.candidates
    x_values = [c.predicted_ms for c in candidates]
    x_values += [v for c in candidates if (v := valid_ms(c)) is not None]
    y_values = [c.error_pct for c in candidates]
    what = f"latency, ms ({word} and predicted)"
    _finish_front(figure, axes, x_values, y_values, width_in, what, title=title)
    if len(data.rounds) == 1:
        at = {m.anchor: m.measured_ms for m in verified_front(data)}
        _annotate(axes, data, theme, at)
    return figure, tips


def _finish_front(
    figure: Figure,
    axes: Axes,
    x_values: Sequence[float],
    y_values: Sequence[float],
    width_in: float,
    x_label: str,
    *,
    title: str = "",
) -> None:
    """Scales, labels with units, legend."""
    log_x = scale_axis(axes, "x", x_values, log_above=12)
    log_y = scale_axis(axes, "y", y_values, log_above=4)
    axes.margins(x=0.06, y=0.1)
    axes.set_xlabel(with_scale(x_label, is_log=log_x))
    axes.set_ylabel(with_scale("error, % (predicted)", is_log=log_y))
    finish(figure, axes, 3 if width_in > 6 else 2, title=title)


def front_svg(data: ReportData, round_index: int, *, name: str, width_in: float) -> Markup:
    """Predicted front against measured front of one round; points link to their table rows."""
    with drawing(TOKENS):
        figure, tips = _front_figure(data, round_index, TOKENS, width_in)
        label = f"{data.rounds[round_index].label}: error against latency, both fronts"
        return inline_svg(figure, name, label=label, titles=tips)


def union_svg(
    data: ReportData, measured: Sequence[Measured], *, name: str, width_in: float
) -> Markup:
    """Everything measured in all rounds and the front of it all, error against latency."""
    return _against_error(
        data, measured, [m.measured_ms for m in measured], "latency, ms",
        name=name, width_in=width_in,
    )  # fmt: skip


def energy_svg(
    data: ReportData, measured: Sequence[Measured], *, name: str, width_in: float
) -> Markup:
    """The same against energy; every one of `measured` needs one."""
    return _against_error(
        data, measured, [m.candidate.energy_mj or 0.0 for m in measured], "energy, mJ",
        name=name, width_in=width_in,
    )  # fmt: skip


def _against_error(
    data: ReportData,
    measured: Sequence[Measured],
    xs: Sequence[float],
    what: str,
    *,
    name: str,
    width_in: float,
) -> Markup:
    word = data.measurement_origin
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 4.5)
        on_front = {m.anchor for m in verified_front(data)}
        draw_staircase(
            axes,
            [
                (x, m.candidate.error_pct)
                for x, m in zip(xs, measured, strict=True)
                if m.anchor in on_front
            ],
            color=TOKENS["measured"], lw=1.8, label=f"{word} front, all rounds",
        )  # fmt: skip
        tips: dict[str, str] = {}
        named: set[int] = set()
        for i, (x, m) in enumerate(zip(xs, measured, strict=True)):
            r = m.round_index
            text = data.rounds[r].label
            (mark,) = axes.plot(
                [x], [m.candidate.error_pct], MARKERS[r % len(MARKERS)],
                ms=7 if m.anchor in on_front else 4.5, color=TOKENS[f"r{r % 4}"],
                mec=TOKENS["panel"], mew=0.6, alpha=1.0 if m.anchor in on_front else 0.6,
                gid=f"pt{i}", label=f"_{text}" if r in named else text, zorder=4,
            )  # fmt: skip
            named.add(r)
            mark.set_url(f"#{m.anchor}")
            shown = milliseconds(m.measured_ms, m.candidate.ci95_ms)
            if m.candidate.energy_mj is not None:
                shown += f", {millijoules(m.candidate.energy_mj)}"
            tips[f"pt{i}"] = f"{short_name(m.candidate.arch)}: {word} {shown}"
        ys = [m.candidate.error_pct for m in measured]
        _finish_front(figure, axes, xs, ys, width_in, f"{what} ({word})")
        at = {m.anchor: x for x, m in zip(xs, measured, strict=True)}
        _annotate(axes, data, TOKENS, at)
        label = f"error against {what.partition(',')[0]} of everything measured in all rounds"
        return inline_svg(figure, name, label=label, titles=tips)


# --- all rounds: how good was the prediction ----------------------------------------------------


def scatter_svg(data: ReportData, *, name: str, width_in: float) -> Markup:
    """Predicted against measured latency; bars are the predictor's sd and the 95 % CI."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 4.2)
        values: list[float] = []
        tips: dict[str, str] = {}
        lost: list[float] = []
        many = len(data.rounds) > 1
        for r, round_data in enumerate(data.rounds):
            colour = TOKENS[f"r{r % 4}"] if many else TOKENS["measured"]
            candidates = round_data.verdict.candidates
            rows = [(i, c, v) for i, c in enumerate(candidates) if (v := valid_ms(c)) is not None]
            lost += [c.predicted_ms for c in candidates if valid_ms(c) is None]
            if rows:
                axes.errorbar(
                    [c.predicted_ms for _, c, _ in rows], [v for _, _, v in rows],
                    xerr=[c.predicted_sd_ms or 0.0 for _, c, _ in rows],
                    yerr=[c.ci95_ms or 0.0 for _, c, _ in rows],
                    color=colour, lw=0.9, alpha=0.6, ls="none", zorder=2,
                )  # fmt: skip
            for i, c, value in rows:
                gid = f"pt{r}-{i}"
                first = many and i == rows[0][0]
                (mark,) = axes.plot(
                    [c.predicted_ms], [value], MARKERS[r % len(MARKERS)], ms=5.5, color=colour,
                    mec=TOKENS["panel"], mew=0.6, gid=gid, zorder=3,
                    label=round_data.label if first else "_",
                )  # fmt: skip
                mark.set_url(f"#{anchor(r, i)}")
                off = signed_pct(100.0 * (c.predicted_ms / value - 1.0))
                shown = f"{data.measurement_origin} {milliseconds(value, c.ci95_ms)}"
                expected = f"predicted {milliseconds(c.predicted_ms)}"
                tips[gid] = f"{short_name(c.arch)}: {expected}, {shown}, {off}"
                values += [value, c.predicted_ms]
        identity(axes, [*values, *lost], "prediction = measurement")
        if lost:
            axes.plot(
                lost, [0.0] * len(lost), "x", ms=8, mew=1.8, color=TOKENS["invalid"], clip_on=False,
                transform=axes.get_xaxis_transform(), label="no valid measurement", zorder=5,
            )  # fmt: skip
        log = scale_axis(axes, "x", [*values, *lost], log_above=12)
        if log:
            scale_axis(axes, "y", [*values, *lost], log_above=0)
        axes.set_xlabel(with_scale("predicted latency, ms", is_log=log))
        axes.set_ylabel(with_scale(f"{data.measurement_origin} latency, ms", is_log=log))
        finish(figure, axes, 3 if width_in > 6 else 2)
        return inline_svg(figure, name, label="predicted against measured latency", titles=tips)


# --- outside the page -----------------------------------------------------------------------------


def front_png(data: ReportData, path: Path, *, dpi: int = 160) -> Path:
    """Write the last round's plot as a PNG in the light scheme (the README's picture); atomic.

    Raises: ValueError when the report has no round, DataError when it cannot be written.
    """
    if not data.rounds:
        raise ValueError(f"report {data.run_id!r} has no verified front to draw")
    with drawing(LIGHT):
        title = f"{data.device.get('name', '')}: {data.device.get('soc', '')}"[:80]
        figure, _ = _front_figure(data, len(data.rounds) - 1, LIGHT, WIDE_IN, title=title)
        picture = io.BytesIO()
        figure.savefig(
            picture, format="png", dpi=dpi, facecolor=LIGHT["panel"], metadata={"Software": None}
        )
    return write_bytes_atomic(path, picture.getvalue())
