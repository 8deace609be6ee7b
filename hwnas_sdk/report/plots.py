"""The pictures of a report. matplotlib is imported inside; figures are objects, never pyplot state.

`FrontPlot` and its siblings are functions from plain data to an inline SVG in which prediction is
always hollow, orange and dashed, and measurement always filled, blue and solid.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hwnas_sdk.core.flags import INVALIDATING
from hwnas_sdk.report._front import Measured, anchor, picks, staircase, valid_ms, verified_front
from hwnas_sdk.report._svg import LIGHT, TOKENS, drawing, inline_svg
from hwnas_sdk.report._text import decimals_for, half_width, milliseconds, number, short_name
from hwnas_sdk.report.data import HypervolumePoint, ReportData, RoundData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_IN, NARROW_IN = 7.8, 4.3
"""Widths of the two renderings of a plot: beside a table on a screen, and on a phone."""

_MARKERS = "osD^v"


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A figure with one gridded pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True)
    return figure, axes


def scale_axis(axes: Axes, which: str, values: Iterable[float], *, log_above: float) -> bool:
    """Make an axis logarithmic when its values span more than `log_above`; plain tick labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    positive = [v for v in values if v > 0]
    if not positive or max(positive) / min(positive) <= log_above:
        return False
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    wide = max(positive) / min(positive) > 100
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    return True


def _label(text: str, *, is_log: bool) -> str:
    return f"{text}, log scale" if is_log else text


def legend_above(figure: Figure, axes: Axes, n_columns: int) -> None:
    """One legend above the axes, where it can cover no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=n_columns, handletextpad=0.5,
            columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip


def draw_staircase(
    axes: Axes, points: Sequence[tuple[float, float]], **style: Any
) -> None:
    """Step line of the front of `points` (latency_ms, error_pct), drawn to the plot's edges."""
    front = [points[i] for i in staircase(points)]
    if not front:
        return
    x_end = max(x for x, _ in points)
    xs, ys = [x for x, _ in front], [y for _, y in front]
    axes.step([*xs, max(x_end, xs[-1])], [*ys, ys[-1]], where="post", **style)


# --- one round: predicted against measured ------------------------------------------------------


def _tip(measured: str, round_data: RoundData, position: int) -> str:
    c = round_data.verdict.candidates[position]
    return f"{short_name(c.arch)}: predicted {milliseconds(c.predicted_ms)}, {measured}"


def _draw_round(
    axes: Axes, round_data: RoundData, round_index: int, theme: Mapping[str, str], word: str
) -> dict[str, str]:
    """Everything of one round; returns the tool tips by gid."""
    candidates = round_data.verdict.candidates
    tips: dict[str, str] = {}
    predicted = [(c.predicted_ms, c.error_pct) for c in candidates]
    measured = [(v, c.error_pct) for c in candidates if (v := valid_ms(c)) is not None]
    draw_staircase(axes, predicted, color=theme["predicted"], ls=(0, (4, 2.5)), lw=1.4)
    draw_staircase(axes, measured, color=theme["measured"], lw=1.8)
    named: set[str] = set()

    def once(text: str) -> str:
        fresh = text not in named
        named.add(text)
        return text if fresh else f"_{text}"

    for i, c in enumerate(candidates):
        value, y = valid_ms(c), c.error_pct
        axes.plot(
            [c.predicted_ms], [y], "o", ms=5.5, mfc="none", mec=theme["predicted"], mew=1.2,
            label=once("predicted"), zorder=3,
        )  # fmt: skip
        gid = f"pt{i}"
        if value is None:
            tips[gid] = _tip("no valid measurement", round_data, i)
            (mark,) = axes.plot(
                [c.predicted_ms], [y], "x", ms=8.5, color=theme["invalid"], mew=1.8, gid=gid,
                label=once("no valid measurement"), zorder=5,
            )  # fmt: skip
        else:
            tips[gid] = _tip(f"{word} {milliseconds(value, c.ci95_ms)}", round_data, i)
            axes.plot([c.predicted_ms, value], [y, y], color=theme["beaten"], lw=0.9, zorder=2)
            if c.ci95_ms:
                axes.errorbar(
                    [value], [y], xerr=[c.ci95_ms], color=theme["measured"], lw=1.1, capsize=2,
                    zorder=3,
                )  # fmt: skip
            beaten = c.on_predicted_front and not c.on_measured_front
            shape, colour, text = "o", "measured", f"{word}, on the front"
            if beaten:
                shape, colour, text = "X", "beaten", f"beaten once {word}"
            elif not c.on_measured_front:
                shape, colour, text = "s", "beaten", f"{word}, not on the front"
            (mark,) = axes.plot(
                [value], [y], shape, ms=5.5 if shape == "s" else 7, color=theme[colour],
                mec=theme["panel"], mew=0.6, gid=gid, label=once(text), zorder=4,
            )  # fmt: skip
        mark.set_url(f"#{anchor(round_index, i)}")
    return tips


def _annotate(axes: Axes, data: ReportData, theme: Mapping[str, str]) -> None:
    """Name the recommended networks beside their points."""
    offsets = {"Fastest": (9, 5, "left"), "Most accurate": (0, 11, "right")}
    for pick in picks(data):
        dx, dy, align = offsets.get(pick.role, (-9, -14, "right"))
        axes.annotate(
            pick.role.lower(), (pick.point.measured_ms, pick.point.candidate.error_pct),
            xytext=(dx, dy), textcoords="offset points", ha=align, fontsize=8.5,
            color=theme["ink"], fontweight="bold", zorder=6,
        )  # fmt: skip


def _front_figure(
    data: ReportData, round_index: int, theme: Mapping[str, str], width_in: float
) -> tuple[Figure, dict[str, str]]:
    round_data, word = data.rounds[round_index], data.measurement_origin
    figure, axes = new_figure(width_in, 4.5)
    tips = _draw_round(axes, round_data, round_index, theme, word)
    candidates = round_data.verdict.candidates
    x_values = [c.predicted_ms for c in candidates]
    x_values += [v for c in candidates if (v := valid_ms(c)) is not None]
    _finish_front(figure, axes, x_values, [c.error_pct for c in candidates], width_in, word)
    if len(data.rounds) == 1:
        _annotate(axes, data, theme)
    return figure, tips


def _finish_front(
    figure: Figure,
    axes: Axes,
    x_values: Sequence[float],
    y_values: Sequence[float],
    width_in: float,
    word: str,
) -> None:
    """Scales, labels with units, legend."""
    log_x = scale_axis(axes, "x", x_values, log_above=12)
    log_y = scale_axis(axes, "y", y_values, log_above=4)
    axes.margins(x=0.06, y=0.1)
    axes.set_xlabel(_label(f"latency, ms ({word} and predicted)", is_log=log_x))
    axes.set_ylabel(_label("error, % (predicted)", is_log=log_y))
    legend_above(figure, axes, 3 if width_in > 6 else 2)


def front_svg(data: ReportData, round_index: int, *, name: str, width_in: float) -> Markup:
    """Predicted front against measured front of one round; points link to their table rows."""
    with drawing(TOKENS):
        figure, tips = _front_figure(data, round_index, TOKENS, width_in)
        label = f"{data.rounds[round_index].label}: error against latency, both fronts"
        return inline_svg(figure, name, label=label, titles=tips)


def union_svg(data: ReportData, measured: Sequence[Measured], *, name: str, width_in: float) -> Markup:
    """Everything measured in all rounds and the front of it all."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 4.5)
        front = verified_front(data)
        draw_staircase(
            axes, [(m.measured_ms, m.candidate.error_pct) for m in front],
            color=TOKENS["measured"], lw=1.8, label=f"{data.measurement_origin} front, all rounds",
        )  # fmt: skip
        tips: dict[str, str] = {}
        on_front = {m.anchor for m in front}
        named: set[int] = set()
        for i, m in enumerate(measured):
            r = m.round_index
            text = data.rounds[r].label
            (mark,) = axes.plot(
                [m.measured_ms], [m.candidate.error_pct], _MARKERS[r % len(_MARKERS)],
                ms=7 if m.anchor in on_front else 4.5, color=TOKENS[f"r{r % 4}"],
                mec=TOKENS["panel"], mew=0.6, alpha=1.0 if m.anchor in on_front else 0.6,
                gid=f"pt{i}", label=f"_{text}" if r in named else text, zorder=4,
            )  # fmt: skip
            named.add(r)
            mark.set_url(f"#{m.anchor}")
            shown = milliseconds(m.measured_ms, m.candidate.ci95_ms)
            tips[f"pt{i}"] = f"{short_name(m.candidate.arch)}: {data.measurement_origin} {shown}"
        xs, ys = [m.measured_ms for m in measured], [m.candidate.error_pct for m in measured]
        _finish_front(figure, axes, xs, ys, width_in, data.measurement_origin)
        axes.set_xlabel(axes.get_xlabel().replace(" and predicted", ""))
        _annotate(axes, data, TOKENS)
        label = "error against latency of everything measured in all rounds"
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
            named = False
            for i, c in enumerate(round_data.verdict.candidates):
                value = valid_ms(c)
                if value is None:
                    lost.append(c.predicted_ms)
                    continue
                gid = f"pt{r}-{i}"
                axes.errorbar(
                    [c.predicted_ms], [value], xerr=_bar(c.predicted_sd_ms), yerr=_bar(c.ci95_ms),
                    color=colour, lw=0.8, alpha=0.6, ls="none", zorder=2,
                )  # fmt: skip
                (mark,) = axes.plot(
                    [c.predicted_ms], [value], _MARKERS[r % len(_MARKERS)], ms=5.5, color=colour,
                    mec=TOKENS["panel"], mew=0.6, gid=gid, zorder=3,
                    label=round_data.label if many and not named else "_",
                )  # fmt: skip
                named = True
                mark.set_url(f"#{anchor(r, i)}")
                off = 100.0 * (c.predicted_ms / value - 1.0)
                tips[gid] = _tip(f"measured {milliseconds(value, c.ci95_ms)} ({off:+.1f} %)", round_data, i)
                values += [value, c.predicted_ms]
        _identity(axes, [*values, *lost], "prediction = measurement")
        if lost:
            axes.plot(
                lost, [0.0] * len(lost), "x", ms=8, mew=1.8, color=TOKENS["invalid"], clip_on=False,
                transform=axes.get_xaxis_transform(), label="no valid measurement", zorder=5,
            )  # fmt: skip
        log = scale_axis(axes, "x", [*values, *lost], log_above=12)
        if log:
            scale_axis(axes, "y", [*values, *lost], log_above=0)
        axes.set_xlabel(_label("predicted latency, ms", is_log=log))
        axes.set_ylabel(_label(f"{data.measurement_origin} latency, ms", is_log=log))
        legend_above(figure, axes, 3 if width_in > 6 else 2)
        return inline_svg(figure, name, label="predicted against measured latency", titles=tips)


def _bar(half: float | None) -> list[float] | None:
    return [half] if half else None


def _identity(axes: Axes, values: Sequence[float], text: str) -> None:
    if values:
        low, high = min(values) * 0.92, max(values) * 1.08
        axes.plot([low, high], [low, high], color=TOKENS["muted"], lw=1, ls=(0, (2, 2)), label=text)


def hypervolume_svg(points: Sequence[HypervolumePoint], *, name: str, width_in: float) -> Markup:
    """Hypervolume over rounds; larger is better."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 3.2)
        lines = (
            ("predicted", [p.predicted for p in points], "predicted", (0, (4, 2.5)), "none"),
            ("measured", [p.measured for p in points], "measured, this round", "-", None),
            ("ink", [p.measured_so_far for p in points], "measured, all so far", (0, (1, 1)), None),
        )
        for role, values, text, dashes, fill in lines:
            known = [(i, v) for i, v in enumerate(values) if v is not None]
            if known:
                axes.plot(
                    [i for i, _ in known], [v for _, v in known], marker="o", ms=6, lw=1.6,
                    ls=dashes, color=TOKENS[role], mfc=fill or TOKENS[role], label=text,
                )  # fmt: skip
        axes.set_xticks(range(len(points)), [p.label for p in points])
        axes.set_ylabel("hypervolume (0 to 1)")
        axes.margins(x=0.12, y=0.2)
        legend_above(figure, axes, 3 if width_in > 6 else 2)
        return inline_svg(figure, name, label="hypervolume over rounds")


# --- the machine ----------------------------------------------------------------------------------


def drift_limit_pct(machine: str) -> float:
    """How far the sentinel may move: 3 %, on a virtual machine 10 %. Source: docs/measuring.md."""
    return 3.0 if machine == "bare" else 10.0


def drift_svg(data: ReportData, *, name: str, width_in: float) -> Markup:
    """Sentinel latency over the run with the band inside which the machine counts as steady."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 3.2)
        base = data.drift_baseline_ms or data.drift[0].sentinel_ms
        limit = drift_limit_pct(str(data.device.get("machine", "bare")))
        bands = [("band", limit)] if limit <= 3 else [("band2", limit), ("band", 3.0)]
        for role, pct in bands:
            axes.axhspan(
                base * (1 - pct / 100), base * (1 + pct / 100), color=TOKENS[role], lw=0, zorder=0,
                label=f"±{pct:g} % of the start",
            )  # fmt: skip
        axes.axhline(base, color=TOKENS["muted"], lw=0.9, ls=(0, (2, 2)))
        longest = max(p.t_s for p in data.drift)
        per, unit = (60.0, "min") if longest > 180 else (1.0, "s")
        xs, ys = [p.t_s / per for p in data.drift], [p.sentinel_ms for p in data.drift]
        axes.plot(xs, ys, color=TOKENS["measured"], lw=1.1, alpha=0.6)
        inside = [abs(y / base - 1) * 100 <= limit for y in ys]
        for ok, shape, role, text in (
            (True, "o", "measured", "sentinel, measured"),
            (False, "X", "invalid", "outside the limit"),
        ):
            chosen = [(x, y) for x, y, good in zip(xs, ys, inside, strict=True) if good is ok]
            if chosen:
                axes.plot(
                    [x for x, _ in chosen], [y for _, y in chosen], shape, ms=5 if ok else 8,
                    color=TOKENS[role], mec=TOKENS["panel"], mew=0.5, label=text, zorder=3,
                )  # fmt: skip
        reach = max([limit * 1.25, *(abs(y / base - 1) * 115 for y in ys)]) / 100
        axes.set_ylim(base * (1 - reach), base * (1 + reach))
        axes.set_xlabel(f"time since the run began, {unit}")
        axes.set_ylabel("sentinel latency, ms")
        axes.grid(visible=False)
        legend_above(figure, axes, 4 if width_in > 6 else 2)
        return inline_svg(figure, name, label="sentinel latency over the run")


def distribution_svg(blocks_ms: Sequence[Sequence[float]], *, name: str, width_in: float) -> Markup:
    """Histogram of all single inferences, and the spread of each block."""
    import numpy as np
    from matplotlib.figure import Figure

    with drawing(TOKENS):
        figure = Figure(figsize=(width_in, 3.0), layout="constrained")
        wide = width_in > 6
        left, right = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        figure.set_figheight(3.0 if wide else 5.2)
        samples = np.concatenate([np.asarray(block, dtype=float) for block in blocks_ms])
        medians = [float(np.median(block)) for block in blocks_ms]
        label_ms = float(np.median(medians))
        # The slowest 1 % would flatten the histogram; what lies beyond is counted in words.
        top = float(np.quantile(samples, 0.99)) if samples.size >= 64 else float(samples.max())
        beyond = int((samples > top).sum())
        n_bins = int(np.clip(np.sqrt(samples.size), 8, 48))
        left.hist(samples[samples <= top], bins=n_bins, color=TOKENS["measured"], alpha=0.75)
        left.axvline(label_ms, color=TOKENS["ink"], lw=1.4, label="latency (median of block medians)")
        if samples.size >= 64:
            left.axvline(
                float(np.quantile(samples, 0.9)), color=TOKENS["predicted"], lw=1.2, ls=(0, (1, 1)),
                label="90th percentile",
            )  # fmt: skip
        tail = f"; {beyond} slower not drawn" if beyond else ""
        left.set_xlabel(f"single inference, ms{tail}")
        left.set_ylabel("number of inferences")
        left.grid(visible=True)
        legend_above(figure, left, 2 if wide else 1)
        low = [m - float(np.quantile(b, 0.25)) for m, b in zip(medians, blocks_ms, strict=True)]
        high = [float(np.quantile(b, 0.75)) - m for m, b in zip(medians, blocks_ms, strict=True)]
        right.errorbar(
            range(1, len(medians) + 1), medians, yerr=[low, high], fmt="o", ms=5, capsize=3, lw=1.1,
            color=TOKENS["measured"],
        )  # fmt: skip
        right.axhline(label_ms, color=TOKENS["ink"], lw=1.4)
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_xlabel("block")
        right.set_ylabel("median and middle half, ms")
        right.grid(visible=True)
        return inline_svg(figure, name, label="distribution of single inferences")


def comparison_svg(
    points: Sequence[tuple[float, float, str]],
    *,
    name: str,
    width_in: float,
    x_label: str,
    y_label: str,
    limit_pct: float | None,
) -> Markup:
    """Latency of the second run against the first; `points` are (a_ms, b_ms, tool tip)."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 4.2)
        values = [v for a, b, _ in points for v in (a, b)]
        _identity(axes, values, "equally fast")
        if limit_pct is not None:
            ends = [min(values) * 0.92, max(values) * 1.08]
            factor = 1 + limit_pct / 100
            axes.plot(
                ends, [v * factor for v in ends], color=TOKENS["invalid"], lw=1.1, ls=(0, (4, 2)),
                label=f"limit: {limit_pct:g} % slower",
            )  # fmt: skip
        tips = {}
        for i, (a, b, tip) in enumerate(points):
            over = limit_pct is not None and b > a * (1 + limit_pct / 100)
            axes.plot(
                [a], [b], "X" if over else "o", ms=8 if over else 5.5, gid=f"pt{i}", zorder=3,
                color=TOKENS["invalid" if over else "measured"], mec=TOKENS["panel"], mew=0.6,
            )  # fmt: skip
            tips[f"pt{i}"] = tip
        if scale_axis(axes, "x", values, log_above=12):
            scale_axis(axes, "y", values, log_above=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        legend_above(figure, axes, 2)
        return inline_svg(figure, name, label="latency of both runs", titles=tips)


# --- outside the page -----------------------------------------------------------------------------


def front_png(data: ReportData, path: Path, *, dpi: int = 160) -> Path:
    """Write the last round's plot as a PNG in the light scheme (the README's picture); atomic.

    Raises: ValueError when the report has no round.
    """
    if not data.rounds:
        raise ValueError(f"report {data.run_id!r} has no verified front to draw")
    with drawing(LIGHT):
        figure, _ = _front_figure(data, len(data.rounds) - 1, LIGHT, WIDE_IN)
        figure.suptitle(
            f"{data.device.get('name', '')}: {data.device.get('soc', '')}"[:90],
            x=0.01, ha="left", fontsize=10, fontweight="bold",
        )  # fmt: skip
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(
                partial, format="png", dpi=dpi, facecolor=LIGHT["panel"], metadata={"Software": None}
            )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path
