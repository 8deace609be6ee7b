"""Axes, scales, legends and lines that every plot of the report shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hwnas_sdk.report._front import staircase
from hwnas_sdk.report._svg import TOKENS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_IN: Final = 7.8
NARROW_IN: Final = 4.3
"""Widths of the two renderings of a plot: beside a table on a screen, and on a phone."""

MARKERS: Final = "osD^v"


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A figure with one gridded pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
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


def with_scale(text: str, *, is_log: bool) -> str:
    return f"{text}, log scale" if is_log else text


def finish(figure: Figure, axes: Axes, n_columns: int, *, title: str = "") -> None:
    """Legend above the plot, where it can cover no point, and margins in inches.

    The legend has `n_columns`, or as many as the figure is wide enough for.

    Fixed margins cost half the time of matplotlib's constrained layout and leave equal plots equal.
    """
    handles, labels = axes.get_legend_handles_labels()
    title_in = 0.3 if title else 0.0
    width_in, height_in = figure.get_size_inches()
    if title:
        figure.text(
            0.1 / width_in, 1 - 0.1 / height_in, title, ha="left", va="top", fontsize=10.5,
            fontweight="bold",
        )  # fmt: skip
    while handles:
        legend = figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.0, 1 - title_in / height_in),
            ncols=n_columns, handletextpad=0.5, columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip
        if n_columns == 1 or legend.get_window_extent().x1 <= figure.bbox.width:
            break
        legend.remove()
        n_columns -= 1
    top_in = 0.12 + title_in + 0.2 * -(-len(handles) // n_columns)
    figure.subplots_adjust(
        left=0.68 / width_in,
        right=1 - 0.14 / width_in,
        bottom=0.5 / height_in,
        top=1 - top_in / height_in,
    )


def draw_staircase(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    """Step line of the front of `points` (latency_ms, error_pct), drawn to the plot's edges."""
    front = [points[i] for i in staircase(points)]
    if not front:
        return
    x_end = max(x for x, _ in points)
    xs, ys = [x for x, _ in front], [y for _, y in front]
    axes.step([*xs, max(x_end, xs[-1])], [*ys, ys[-1]], where="post", **style)


def identity(axes: Axes, values: Sequence[float], text: str) -> None:
    if values:
        low, high = min(values) * 0.92, max(values) * 1.08
        axes.plot([low, high], [low, high], color=TOKENS["muted"], lw=1, ls=(0, (2, 2)), label=text)
