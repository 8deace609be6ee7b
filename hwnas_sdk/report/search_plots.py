"""Pictures of the benches of searches: fronts per device, methods over devices, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.report._figure import MARKERS, WIDE_IN, finish, new_figure
from hwnas_sdk.report._svg import LIGHT
from hwnas_sdk.report.predictor_plots import outer_labels, panels_for, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_FEWEST_AXES: Final = 3


@dataclass(frozen=True)
class Found:
    """True values of a device's candidates and of its front, (n, 2): error_pct, latency_ms."""

    candidates: Floats
    front: Floats
    normalized_hv: float


def draw_fronts(devices: Mapping[str, Found], *, method: str, path: Path) -> Path:
    """One panel per device: the true front and, over it, the candidates' true values."""

    def draw() -> Figure:
        figure, axes_of = panels_for(len(devices))
        for axes, (name, found) in zip(axes_of, devices.items(), strict=False):
            front = found.front[np.argsort(found.front[:, 1])]
            axes.step(
                front[:, 1], front[:, 0], where="post", color=LIGHT["muted"], lw=1.2,
                label="true front",
            )  # fmt: skip
            axes.plot(
                found.candidates[:, 1], found.candidates[:, 0], "o", ms=3.5, mew=0,
                color=LIGHT["measured"], label=method,
            )  # fmt: skip
            # Cells near guessing are of no interest, and would flatten all others.
            axes.set_ylim(front[:, 0].min() - 1.0, np.quantile(front[:, 0], 0.9) + 5.0)
            axes.set_title(f"{name}: {found.normalized_hv:.4f}", fontsize=9.5, loc="left")
        axes_of[0].legend(fontsize=8, frameon=False)
        outer_labels(figure, "latency, ms", "error, %")
        return figure

    return write_picture(draw, path)


def draw_rounds(answer: Mapping[str, Any], *, path: Path) -> Path:
    """Normalised hypervolume of all that was proposed up to each round: devices, and their mean.

    `answer` is what `bench search` returned for several rounds.
    """
    devices = {name: a["normalized_hv_by_round"] for name, a in answer["devices"].items()}
    n_rounds = len(next(iter(devices.values())))
    n_revealed = [answer["candidates"] * (number + 1) for number in range(n_rounds)]

    def draw() -> Figure:
        figure, axes = new_figure(0.8 * WIDE_IN, 4.2)
        for number, (name, values) in enumerate(devices.items()):
            axes.plot(
                n_revealed, values, color=f"C{number % 10}", lw=1.2,
                marker=MARKERS[number % len(MARKERS)], ms=4, label=name,
            )  # fmt: skip
        axes.plot(
            n_revealed, np.mean(list(devices.values()), axis=0), color=LIGHT["ink"], lw=3.0,
            marker="o", ms=6, label="mean",
        )  # fmt: skip
        axes.set_xticks(n_revealed)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel(f"candidates of all rounds so far, {answer['candidates']} a round")
        axes.set_ylabel("normalised hypervolume")
        finish(figure, axes, 4)
        # Near one the tick labels have five decimals.
        figure.subplots_adjust(left=0.92 / figure.get_size_inches()[0])
        return figure

    return write_picture(draw, path)


def draw_radar(methods: Mapping[str, Mapping[str, float]], *, path: Path) -> Path:
    """Normalised hypervolume of methods over devices; farther out is better.

    Drawn is -log10 of what is missing to the true front, so that .99 and .999 are told apart.
    Raises: ValueError with fewer than three devices.
    """
    devices = list(next(iter(methods.values())))
    if len(devices) < _FEWEST_AXES:
        raise ValueError(f"a radar needs at least {_FEWEST_AXES} devices, got {len(devices)}")

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(0.75 * WIDE_IN, 0.69 * WIDE_IN), layout="constrained")
        axes = figure.add_subplot(projection="polar")
        angles = np.linspace(0.0, 2.0 * np.pi, len(devices), endpoint=False)
        ticks = (0.9, 0.97, 0.99, 0.997, 0.999)
        for number, (name, values) in enumerate(methods.items()):
            missing = 1.0 - np.array([values[device] for device in devices])
            radius = -np.log10(np.clip(missing, 1e-4, 1.0))
            axes.plot(
                [*angles, angles[0]], [*radius, radius[0]], color=f"C{number % 10}", lw=1.4,
                marker=MARKERS[number % len(MARKERS)], ms=4, label=name,
            )  # fmt: skip
        axes.set_xticks(angles, devices, fontsize=8.5)
        for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
            # Away from the circle, not across it; straight up and down it stays in the middle.
            side = float(np.cos(angle))
            text.set_horizontalalignment(
                "center" if abs(side) < 0.2 else "left" if side > 0.0 else "right"
            )
        axes.set_yticks([-np.log10(1.0 - t) for t in ticks], [f"{t:g}" for t in ticks], fontsize=7)
        # Between two devices, for six of them. Typed as plain axes, though it is polar.
        axes.set_rlabel_position(90.0)  # type: ignore[attr-defined]
        # Above the circle: beside it the legend and a long name of a device would share a place.
        figure.legend(fontsize=8, frameon=False, loc="outside upper center", ncols=4)
        return figure

    return write_picture(draw, path)


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, path: Path
) -> Path:
    """Lines of (x, y) points, one per name: hypervolume over epochs or evaluations."""

    def draw() -> Figure:
        figure, axes = new_figure(0.8 * WIDE_IN, 4.2)
        for number, (name, points) in enumerate(curves.items()):
            axes.plot(
                *zip(*points, strict=True), color=f"C{number % 10}", lw=1.5,
                marker=MARKERS[number % len(MARKERS)], ms=4, label=name,
            )  # fmt: skip
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        finish(figure, axes, 4)
        figure.subplots_adjust(left=0.92 / figure.get_size_inches()[0])  # ticks of five decimals
        return figure

    return write_picture(draw, path)


def table_of(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Normalised hypervolume by method and device, from what `bench search` returned."""
    return {
        name: {device: float(a["normalized_hv"]) for device, a in answer["devices"].items()}
        for name, answer in answers.items()
    }
