"""Two pictures of a simulated accelerator: its roofline, and its numbers against published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.files import check_writable
from hwnas_sdk.report._figure import MARKERS, new_figure
from hwnas_sdk.simulators.description import AcceleratorDescription

_DPI = 130
_NAMES = {"modelled": "pooling modelled", "dense_conv": "pooling as a dense convolution"}


def draw_roofline(
    layers: Sequence[Mapping[str, Any]], description: AcceleratorDescription, path: Path
) -> Path:
    """Multiply-accumulates per second over those per byte of the outermost memory, per layer.

    `layers` are rows of `hwnas bench simulator`. The roof is that of the description: elements x
    clock, and the width of the outermost memory's port (both directions together).
    """
    rows = [row for row in layers if row["macs"] and row["macs_per_byte"]]
    clock_hz = description.clock_mhz * 1e6
    peak = description.array.n_elements * clock_hz / 1e9
    outer = description.outermost
    directions = 1 if outer.ports == "shared" else 2
    gb_per_s = directions * outer.width_bits("input", description.clock_mhz) / 8 * clock_hz / 1e9
    intensity = [row["macs_per_byte"] for row in rows]
    figure, axes = new_figure(7.8, 4.6)
    span = np.geomspace(0.5 * min(intensity), 2.0 * max([*intensity, peak / gb_per_s]), 200)
    axes.plot(span, np.minimum(peak, span * gb_per_s), color="0.35", lw=1.5, label="roof")
    for number, row in enumerate(rows):
        rate = row["macs"] / row["latency_us"] / 1e3
        axes.plot(
            row["macs_per_byte"], rate, MARKERS[(number + number // 10) % len(MARKERS)],
            color=f"C{number % 10}", ms=7, label=f"{row['op']} {row['shape']}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-accumulates per byte of the outermost memory")
    axes.set_ylabel("10$^9$ multiply-accumulates per second")
    axes.set_title(
        f"{description.title}\n{peak:.1f} GMAC/s at most, {gb_per_s:.2f} GB/s", fontsize=10
    )
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def draw_scatter(
    predicted: Mapping[str, NDArray[np.float64]],
    published: NDArray[np.float64],
    *,
    title: str,
    path: Path,
) -> Path:
    """Simulated over published latency of every network, one colour per pooling convention."""
    figure, axes = new_figure(5.6, 5.2)
    known = np.isfinite(published)
    top = 1.05 * max(float(published[known].max()), *(float(v.max()) for v in predicted.values()))
    axes.plot([0.0, top], [0.0, top], color="0.5", lw=1.0, ls="--", label="equal")
    for number, (name, values) in enumerate(predicted.items()):
        # Few different values among thousands of networks: draw each place once.
        points = np.unique(np.round(np.column_stack([published, values])[known], 4), axis=0)
        axes.plot(
            points[:, 0], points[:, 1], MARKERS[number], ms=4, alpha=0.6,
            color=f"C{number}", label=_NAMES.get(name, name),
        )  # fmt: skip
    axes.set_xlim(0.0, top)
    axes.set_ylim(0.0, top)
    axes.set_aspect("equal")
    axes.set_xlabel("published latency, ms")
    axes.set_ylabel("simulated latency, ms")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    check_writable(path)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": ""})
    return path
