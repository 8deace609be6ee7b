"""Two runs side by side: the same networks on two boards, or on one board before and after."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hwnas_sdk.core.files import write_bytes_atomic
from hwnas_sdk.report import _run_plots
from hwnas_sdk.report._page import both_widths, render_template
from hwnas_sdk.report._rows import FlagView, flag_views, shared_flags
from hwnas_sdk.report._text import (
    MISSING,
    counted,
    decimals_for,
    flattened,
    half_width,
    number,
    short_name,
    signed_pct,
)
from hwnas_sdk.report.cell import cell_svg
from hwnas_sdk.report.data import Change, ComparisonPair, ComparisonSide

_FLAGS = ("a_flags", "b_flags")


@dataclass(frozen=True, slots=True)
class PairView:
    """One line of the table."""

    anchor: str
    name: str
    arch: str
    cell: Markup | None
    a: str
    a_spread: str
    b: str
    b_spread: str
    ratio: str
    change: str
    remark: str
    css: str
    flags: tuple[tuple[str, FlagView], ...]


def render_comparison(
    a: ComparisonSide,
    b: ComparisonSide,
    pairs: Sequence[ComparisonPair],
    *,
    title: str = "",
    limit_pct: float | None = None,
    spearman: float | None = None,
    command: str = "",
    changed: Sequence[Change] = (),
    not_recorded: Sequence[str] = (),
    flags_explained: Mapping[str, str] | None = None,
) -> str:
    """The page that compares run `b` with run `a`; equal data gives equal bytes.

    Args:
        a: the earlier, or reference, run.
        b: the run that is judged.
        pairs: one per architecture of either run, in any order.
        title: heading; "" names both runs.
        limit_pct: a network more than this much slower in `b`, and clearly so (both intervals),
            is a regression.
        spearman: rank correlation of the two latencies, if known.
        command: what to type to get this page again.
        changed: what differs between the runs besides the latencies.
        not_recorded: facts that would matter and that neither run knows.
        flags_explained: flag -> meaning, in addition to `core.flags`.
    """
    explained = flags_explained or {}
    ordered = sorted(pairs, key=lambda p: (p.change_pct is None, -(p.change_pct or 0.0), p.arch))
    stats = _stats(ordered, limit_pct)
    used = {f for p in pairs for f in (*p.a_flags, *p.b_flags)}
    return render_template(
        "compare.html.j2",
        title=title or f"{_place(a)} and {_place(b)} compared",
        a=a,
        b=b,
        a_place=_place(a),
        b_place=_place(b),
        headline=_headline(a, b, stats),
        stats=stats,
        rows=_rows(ordered, limit_pct, explained),
        spearman=None if spearman is None else number(spearman, 3),
        limit_pct=limit_pct,
        warnings=_warnings(a, b),
        shared=[
            (side, flag_views(shared_flags([getattr(p, s) for p in ordered]), explained))
            for side, s in zip("AB", _FLAGS, strict=True)
        ],
        plot=_plot(a, ordered, limit_pct),
        flags=flag_views(used, explained),
        sides=_sides(a, b),
        changed=changed,
        not_recorded=not_recorded,
        differences=_differences(a, b),
        command=command,
    )


def write_comparison(
    a: ComparisonSide,
    b: ComparisonSide,
    pairs: Sequence[ComparisonPair],
    path: Path,
    **options: Any,
) -> Path:
    """Render and write the page atomically; `options` are those of `render_comparison`.

    Raises: DataError when the file cannot be written.
    """
    return write_bytes_atomic(path, render_comparison(a, b, pairs, **options).encode())


@dataclass(frozen=True, slots=True)
class _Stats:
    worst: str
    worst_name: str
    worst_anchor: str
    worst_pct: float | None
    median_pct: float | None
    median: str
    best: str
    n_both: int
    n_clear: int
    n_over: int
    verdict: str


def _stats(ordered: Sequence[ComparisonPair], limit_pct: float | None) -> _Stats:
    changes = [p.change_pct for p in ordered if p.change_pct is not None]
    over = [p for p in ordered if _is_regression(p, limit_pct)]
    verdict = ""
    if limit_pct is not None:
        what = counted(len(over), "network is slower", "networks are slower")
        limit = f"by more than the limit of {limit_pct:g} %, beyond both 95 % intervals"
        verdict = f"Regression: {what} {limit}." if over else f"No network is slower {limit}."
    middle = statistics.median(changes) if changes else None
    return _Stats(
        worst=signed_pct(changes[0] if changes else None),
        worst_name=short_name(ordered[0].arch) if changes else "",
        worst_anchor="p1",
        worst_pct=changes[0] if changes else None,
        median_pct=middle,
        median=signed_pct(middle),
        best=signed_pct(changes[-1] if changes else None),
        n_both=len(changes),
        n_clear=sum(p.is_clear for p in ordered),
        n_over=len(over),
        verdict=verdict,
    )


def _is_regression(p: ComparisonPair, limit_pct: float | None) -> bool:
    """Whether a network is slower by more than the limit and beyond both intervals."""
    change = p.change_pct
    return limit_pct is not None and change is not None and change > limit_pct and p.is_clear


def _place(side: ComparisonSide) -> str:
    """Label of a run; one that is only a letter is replaced by device and run."""
    if len(side.label) > 1:
        return side.label
    return f"{side.device.get('name', side.label)}, {side.run_id[:12]}"


def _headline(a: ComparisonSide, b: ComparisonSide, stats: _Stats) -> str:
    if stats.median_pct is None:
        return f"{_place(a)} and {_place(b)} have no validly measured network in common."
    size = abs(stats.median_pct)
    if size < 0.05:
        middle = "is as fast as"
    else:
        middle = f"is {size:.1f} % {'slower' if stats.median_pct > 0 else 'faster'} than"
    return (
        f"B ({_place(b)}) {middle} A ({_place(a)}) in the median of "
        f"{counted(stats.n_both, 'network')}; the worst change is {stats.worst}."
    )


def _rows(
    ordered: Sequence[ComparisonPair], limit_pct: float | None, explained: Mapping[str, str]
) -> list[PairView]:
    ms = decimals_for(v for p in ordered for v in (p.a_ms, p.b_ms))
    a_common, b_common = (shared_flags([getattr(p, s) for p in ordered]) for s in _FLAGS)
    rows = []
    for i, p in enumerate(ordered, start=1):
        change = p.change_pct
        over = _is_regression(p, limit_pct)
        flags = [("A", f) for f in flag_views(set(p.a_flags) - a_common, explained)]
        flags += [("B", f) for f in flag_views(set(p.b_flags) - b_common, explained)]
        rows.append(
            PairView(
                anchor=f"p{i}",
                name=short_name(p.arch),
                arch=p.arch,
                cell=cell_svg(p.arch),
                a=number(p.a_ms, ms),
                a_spread=half_width(p.a_ci95_ms, ms),
                b=number(p.b_ms, ms),
                b_spread=half_width(p.b_ci95_ms, ms),
                ratio=MISSING if change is None else f"{1 + change / 100:.3f}",
                change=signed_pct(change),
                remark=_remark(p, over=over),
                css="invalid" if over or change is None else "",
                flags=tuple(flags),
            )
        )
    return rows


def _remark(p: ComparisonPair, *, over: bool) -> str:
    if p.change_pct is None:
        sides = [name for name, value in (("A", p.a_ms), ("B", p.b_ms)) if not value]
        return f"no valid measurement in {' and '.join(sides)}"
    if over:
        return "regression"
    return "" if p.is_clear else "within the 95 % intervals"


def _plot(
    a: ComparisonSide, ordered: Sequence[ComparisonPair], limit_pct: float | None
) -> Markup | None:
    points = [p for p in ordered if p.change_pct is not None]
    if not points:
        return None
    draw = partial(
        _run_plots.comparison_svg,
        points,
        x_label=f"latency in A, ms ({a.origin})",
        limit_pct=limit_pct,
    )
    return both_widths(draw, "compare")


def _warnings(a: ComparisonSide, b: ComparisonSide) -> list[str]:
    warnings = []
    if a.origin != b.origin:
        warnings.append(f"The latencies of A are {a.origin}, those of B {b.origin}.")
    if dict(a.settings) != dict(b.settings):
        warnings.append("The two runs were measured with different settings; see the table below.")
    return warnings


def _sides(a: ComparisonSide, b: ComparisonSide) -> list[tuple[str, str, str]]:
    def facts(side: ComparisonSide) -> dict[str, str]:
        return {
            "label": side.label,
            "run": side.run_id,
            "created": side.created_at,
            "hwnas_sdk": side.sdk_version,
            "device": str(side.device.get("name", MISSING)),
            "SoC": str(side.device.get("soc", MISSING)),
            "machine": str(side.device.get("machine", MISSING)),
        }

    left, right = facts(a), facts(b)
    return [(key, left[key], right[key]) for key in left]


def _differences(a: ComparisonSide, b: ComparisonSide) -> list[tuple[str, str, str]]:
    found = []
    for group in ("settings", "device", "environment"):
        left, right = dict(flattened(getattr(a, group))), dict(flattened(getattr(b, group)))
        for key in dict.fromkeys([*left, *right]):
            va, vb = left.get(key, MISSING), right.get(key, MISSING)
            if va != vb:
                found.append((f"{group}: {key}", va, vb))
    return found
