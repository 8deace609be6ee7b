"""Plots of the run rather than of its front: steadiness, hypervolume, distributions, two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from hwnas_sdk.report._figure import finish, new_figure, scale_axis, with_scale
from hwnas_sdk.report._svg import TOKENS, drawing, inline_svg
from hwnas_sdk.report._text import milliseconds, short_name, signed_pct
from hwnas_sdk.report.data import ComparisonPair, HypervolumePoint, ReportData


def hypervolume_svg(
    points: Sequence[HypervolumePoint], word: str, *, name: str, width_in: float
) -> Markup:
    """Hypervolume over rounds; larger is better."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 3.2)
        lines = (
            ("predicted", [p.predicted for p in points], "predicted", (0, (4, 2.5)), "none"),
            ("measured", [p.measured for p in points], f"{word}, this round", "-", None),
            ("ink", [p.measured_so_far for p in points], f"{word}, all so far", (0, (1, 1)), None),
        )
        for role, values, text, dashes, fill in lines:
            known = [(i, v) for i, v in enumerate(values) if v is not None]
            if known:
                axes.plot(
                    [i for i, _ in known], [v for _, v in known], marker="o", ms=6, lw=1.6,
                    ls=dashes, color=TOKENS[role], mfc=fill or TOKENS[role], label=text,
                )  # fmt: skip
        # No more names than have a place beside each other.
        shown = range(0, len(points), -(-len(points) // (8 if width_in > 6 else 4)))
        names = [
            p.label if p.n_so_far is None else f"{p.label}\n{p.n_so_far} networks"
            for p in (points[i] for i in shown)
        ]
        axes.set_xticks(shown, names)
        axes.set_ylabel("hypervolume (0 to 1)")
        axes.margins(x=0.12, y=0.2)
        finish(figure, axes, 3 if width_in > 6 else 2)
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
            (True, "o", "measured", f"sentinel, {data.measurement_origin}"),
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
        finish(figure, axes, 4 if width_in > 6 else 2)
        return inline_svg(figure, name, label="sentinel latency over the run")


def distribution_svg(blocks_ms: Sequence[Sequence[float]], *, name: str, width_in: float) -> Markup:
    """Histogram of all single inferences, and the spread of each block."""
    import numpy as np
    from matplotlib.figure import Figure

    with drawing(TOKENS):
        wide = width_in > 6
        figure = Figure(figsize=(width_in, 3.2 if wide else 5.6))
        left, right = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        samples = np.concatenate([np.asarray(block, dtype=float) for block in blocks_ms])
        medians = [float(np.median(block)) for block in blocks_ms]
        label_ms = float(np.median(medians))
        # The slowest 1 % would flatten the histogram; what lies beyond is counted in words.
        top = float(np.quantile(samples, 0.99)) if samples.size >= 64 else float(samples.max())
        beyond = int((samples > top).sum())
        n_bins = int(np.clip(np.sqrt(samples.size), 8, 48))
        left.hist(samples[samples <= top], bins=n_bins, color=TOKENS["measured"], alpha=0.75)
        left.axvline(
            label_ms, color=TOKENS["ink"], lw=1.4, label="latency (median of block medians)"
        )
        if samples.size >= 64:
            left.axvline(
                float(np.quantile(samples, 0.9)), color=TOKENS["predicted"], lw=1.2, ls=(0, (1, 1)),
                label="90th percentile",
            )  # fmt: skip
        tail = f"; {beyond} slower not drawn" if beyond else ""
        left.set_xlabel(f"single inference, ms{tail}")
        left.set_ylabel("number of inferences")
        left.grid(visible=True)
        finish(figure, left, 2 if wide else 1)
        figure.subplots_adjust(wspace=0.26, hspace=0.34)
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
    points: Sequence[ComparisonPair],
    *,
    name: str,
    width_in: float,
    x_label: str,
    limit_pct: float | None,
) -> Markup:
    """Change of latency from run A to run B over the latency in A; every point has both."""
    with drawing(TOKENS):
        figure, axes = new_figure(width_in, 3.8)
        a_ms = [p.a_ms or 0.0 for p in points]
        change = [p.change_pct or 0.0 for p in points]
        axes.axhline(0.0, color=TOKENS["muted"], lw=1, ls=(0, (2, 2)), label="equally fast")
        if limit_pct is not None:
            axes.axhline(
                limit_pct, color=TOKENS["invalid"], lw=1.1, ls=(0, (4, 2)),
                label=f"limit: {limit_pct:g} % slower",
            )  # fmt: skip
        axes.errorbar(
            a_ms, change, yerr=[_ratio_ci_pct(p) for p in points], ls="none", lw=1, capsize=2,
            color=TOKENS["beaten"], zorder=2,
        )  # fmt: skip
        tips, named = {}, set()
        for i, p in enumerate(points):
            over = limit_pct is not None and change[i] > limit_pct and p.is_clear
            text = "regression" if over else "network"
            axes.plot(
                [a_ms[i]], [change[i]], "X" if over else "o", ms=8 if over else 6, gid=f"pt{i}",
                color=TOKENS["invalid" if over else "measured"], mec=TOKENS["panel"], mew=0.6,
                label=f"_{text}" if text in named else text, zorder=3,
            )  # fmt: skip
            named.add(text)
            both = f"A {milliseconds(a_ms[i])}, B {milliseconds(p.b_ms or 0.0)}"
            tips[f"pt{i}"] = f"{short_name(p.arch)}: {both}, {signed_pct(change[i])}"
        is_log = scale_axis(axes, "x", a_ms, log_above=12)
        axes.set_xlabel(with_scale(x_label, is_log=is_log))
        axes.set_ylabel("change from A to B, %")
        axes.margins(x=0.06, y=0.15)
        finish(figure, axes, 4 if width_in > 6 else 2)
        return inline_svg(figure, name, label="change of latency between the runs", titles=tips)


def _ratio_ci_pct(p: ComparisonPair) -> float:
    """Half-width of the interval of B / A, in percent; first order, the two being independent."""
    if not p.a_ms or not p.b_ms:
        return 0.0
    relative = math.hypot((p.a_ci95_ms or 0.0) / p.a_ms, (p.b_ci95_ms or 0.0) / p.b_ms)
    return 100.0 * p.b_ms / p.a_ms * relative
