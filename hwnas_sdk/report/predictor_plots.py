"""Pictures of the benches of predictors: predicted over true, calibration, sweeps and ablations."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.files import write_bytes_atomic
from hwnas_sdk.report._figure import MARKERS, WIDE_IN, finish, new_figure, scale_axis, with_scale
from hwnas_sdk.report._svg import LIGHT, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_DPI: Final = 130
_COLUMNS: Final = 3
_PANEL_IN: Final = 2.6
_LEVELS: Final = np.linspace(0.02, 0.98, 49)
_WANTED: Final = (0.85, 0.95)
"""Coverage of a 90 % interval that counts as honest."""


@dataclass(frozen=True)
class Predicted:
    """Truth and prediction of one device's judged networks, (n,) each; sd NaN = none stated."""

    truth: Floats
    mean: Floats
    sd: Floats
    kendall: float | None

    def coverage(self, levels: Floats) -> Floats:
        """Share of truths in the central interval of each nominal level, (m,) -> (m,)."""
        deviation = np.abs(self.truth - self.mean) / self.sd
        widths = [NormalDist().inv_cdf(0.5 + level / 2) for level in levels]
        return np.array([float(np.mean(deviation <= width)) for width in widths])


def draw_predictions(
    devices: Mapping[str, Predicted],
    *,
    unit: str,
    path: Path,
    truth: str = "published",
    marker_size: float = 1.5,
) -> Path:
    """One panel per device (or model): every prediction over the true value, with tau-b.

    `truth` says what the true values are; `marker_size` is in points.
    """

    def draw() -> Figure:
        figure, panels = panels_for(len(devices))
        for axes, (name, device) in zip(panels, devices.items(), strict=False):
            values = np.column_stack([device.truth, device.mean])
            positive = values[(values > 0).all(axis=1)]
            low, high = float(positive.min()), float(positive.max())
            axes.plot([low, high], [low, high], color=LIGHT["muted"], lw=1, ls=(0, (2, 2)))
            axes.plot(
                positive[:, 0], positive[:, 1], ".", ms=marker_size, mew=0,
                alpha=0.25 if len(positive) > 100 else 0.8,
                color=LIGHT["measured"], rasterized=True,
            )  # fmt: skip
            scale_axis(axes, "x", [low, high], log_above=12)
            scale_axis(axes, "y", [low, high], log_above=12)
            tau = "-" if device.kendall is None else f"{device.kendall:.3f}"
            axes.set_title(f"{name}: Kendall {tau}", fontsize=9.5, loc="left")
        outer_labels(figure, f"{truth}, {unit}", f"predicted, {unit}")
        return figure

    return write_picture(draw, path)


def draw_calibration(devices: Mapping[str, Predicted], *, path: Path) -> Path:
    """Observed over nominal coverage of central intervals, one line per device."""

    def draw() -> Figure:
        figure, axes = new_figure(0.7 * WIDE_IN, 4.8)
        axes.plot([0, 100], [0, 100], color=LIGHT["muted"], lw=1, ls=(0, (2, 2)), label="honest")
        axes.plot(
            [90, 90], [100 * share for share in _WANTED], color=LIGHT["invalid"], lw=4,
            solid_capstyle="butt", label="85-95 % of the 90 % interval", zorder=4,
        )  # fmt: skip
        for number, (name, device) in enumerate(devices.items()):
            axes.plot(
                100 * _LEVELS, 100 * device.coverage(_LEVELS), color=f"C{number % 10}", lw=1.5,
                marker=MARKERS[number % len(MARKERS)], ms=4, markevery=8, label=name,
            )  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("nominal coverage, %")
        axes.set_ylabel("observed coverage, %")
        finish(figure, axes, 3)
        return figure

    return write_picture(draw, path)


def draw_curve(
    rows: Sequence[Mapping[str, Any]],
    *,
    over: str,
    lines: Mapping[str, str],
    labels: tuple[str, str],
    path: Path,
) -> Path:
    """Figures of a sweep over the number in column `over`; `lines` is column -> legend."""

    def draw() -> Figure:
        figure, axes = new_figure(0.8 * WIDE_IN, 4.0)
        numbers = [float(row[over]) for row in rows]
        for number, (column, text) in enumerate(lines.items()):
            axes.plot(
                numbers, [row[column] for row in rows], color=LIGHT[f"r{number % 4}"], lw=1.6,
                marker=MARKERS[number % len(MARKERS)], ms=5.5, label=text,
            )  # fmt: skip
        is_log = scale_axis(axes, "x", numbers, log_above=12)
        axes.set_xlabel(with_scale(labels[0], is_log=is_log))
        axes.set_ylabel(labels[1])
        finish(figure, axes, len(lines))
        return figure

    return write_picture(draw, path)


def draw_bars(
    groups: Mapping[str, Mapping[str, float]], *, label: str, path: Path, decimals: int = 3
) -> Path:
    """Bars side by side: group -> way -> figure. A way may be missing in a group."""

    def draw() -> Figure:
        ways = list(dict.fromkeys(way for group in groups.values() for way in group))
        figure, axes = new_figure(max(WIDE_IN, 0.24 * len(ways) * len(groups)), 3.8)
        axes.grid(visible=False, axis="x")
        width = 0.82 / len(ways)
        crowded = len(ways) * len(groups) > 16
        for number, way in enumerate(ways):
            at = [i + (number - (len(ways) - 1) / 2) * width for i in range(len(groups))]
            heights = [group.get(way, np.nan) for group in groups.values()]
            axes.bar(at, heights, 0.92 * width, color=f"C{number % 10}", label=way)
            for x, height in zip(at, heights, strict=True):
                if np.isfinite(height):
                    axes.annotate(
                        f"{height:.{decimals}f}".lstrip("0"), (x, height), xytext=(0, 2),
                        textcoords="offset points", ha="center",
                        fontsize=6.5 if crowded else 8, rotation=90 if crowded else 0,
                    )  # fmt: skip
        axes.set_xticks(range(len(groups)), list(groups))
        axes.margins(y=0.14)
        axes.set_ylabel(label)
        finish(figure, axes, min(len(ways), 4))
        return figure

    return write_picture(draw, path)


def panels_for(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with `n` small panels."""
    from matplotlib.figure import Figure

    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    figure = Figure(figsize=(_PANEL_IN * columns + 0.4, _PANEL_IN * rows + 0.4))
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = list(grid.flat)
    for axes in panels:
        axes.grid(visible=True)
        axes.tick_params(labelsize=7.5)
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels


def outer_labels(figure: Figure, x_label: str, y_label: str) -> None:
    """Axis labels once per figure, and margins in inches."""
    width_in, height_in = figure.get_size_inches()
    figure.supxlabel(x_label, fontsize=9.5, y=0.06 / height_in)
    figure.supylabel(y_label, fontsize=9.5, x=0.06 / width_in)
    figure.subplots_adjust(
        left=0.62 / width_in, right=1 - 0.1 / width_in, bottom=0.5 / height_in,
        top=1 - 0.28 / height_in, wspace=0.28, hspace=0.32,
    )  # fmt: skip


def write_picture(draw: Callable[[], Figure], path: Path) -> Path:
    """A PNG in the light scheme; atomic. Raises: DataError when it cannot be written."""
    with drawing(LIGHT):
        picture = io.BytesIO()
        draw().savefig(
            picture, format="png", dpi=_DPI, facecolor=LIGHT["panel"], metadata={"Software": None}
        )
    return write_bytes_atomic(path, picture.getvalue())
