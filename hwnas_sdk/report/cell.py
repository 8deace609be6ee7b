"""A NAS-Bench-201 cell as a small picture: four nodes in a row, an arc or a line per operator.

Operators differ by colour, dash pattern and label, so none of the three is the only carrier.
``none`` edges are left out; an operator that no path from input to output uses is drawn faintly.
The colours are CSS classes (templates/style.css), so one picture serves light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.spaces.nasbench201 import EDGES, OPERATORS, NasBench201


@dataclass(frozen=True, slots=True)
class Operator:
    """How one operator is drawn: CSS class, label on the edge, words for the screen reader."""

    css: str
    label: str
    words: str


_3X3, _1X1 = "3\N{MULTIPLICATION SIGN}3", "1\N{MULTIPLICATION SIGN}1"

DRAWN: dict[str, Operator] = {
    "nor_conv_3x3": Operator("op3", _3X3, f"{_3X3} convolution"),
    "nor_conv_1x1": Operator("op1", _1X1, f"{_1X1} convolution"),
    "avg_pool_3x3": Operator("opp", "pool", f"{_3X3} average pooling"),
    "skip_connect": Operator("ops", "skip", "skip connection"),
}

_NODES = (("in", 12), ("1", 74), ("2", 136), ("out", 198))
_Y = 46
# Path and label position of each edge, in px; arcs keep the six edges free of crossings.
_PATHS: dict[tuple[int, int], tuple[str, int, int]] = {
    (0, 1): ("M23 46H63", 43, 46),
    (1, 2): ("M85 46H125", 105, 46),
    (2, 3): ("M147 46H187", 167, 46),
    (0, 2): ("M18 37Q74 9 130 37", 74, 23),
    (0, 3): ("M13 35Q105 -23 197 35", 105, 6),
    (1, 3): ("M80 55Q136 83 192 55", 136, 69),
}


def cell_operators(arch: str) -> tuple[str, ...] | None:
    """Operator of each of `EDGES`, or None when `arch` is not a cell of this space."""
    try:
        genotype = NasBench201().decode(arch).genotype
    except SpaceError:
        return None
    return tuple(OPERATORS[gene] for gene in genotype)


def live_edges(operators: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    """Edges that lie on a path from input to output."""
    present = [edge for edge, op in zip(EDGES, operators, strict=True) if op != "none"]
    forward, backward = {0}, {3}
    for source, target in sorted(present):  # sorted by source: one sweep reaches everything
        if source in forward:
            forward.add(target)
    for source, target in sorted(present, reverse=True):
        if target in backward:
            backward.add(source)
    return frozenset((s, t) for s, t in present if s in forward and t in backward)


def cell_svg(arch: str) -> Markup | None:
    """Inline SVG of a cell; None when `arch` is not a string of this space."""
    operators = cell_operators(arch)
    if operators is None:
        return None
    live = live_edges(operators)
    lines, labels, words = [], [], []
    for edge, name in zip(EDGES, operators, strict=True):
        if name == "none":
            continue
        op, (path, x, y) = DRAWN[name], _PATHS[edge]
        faint = "" if edge in live else " unused"
        lines.append(f'<path class="{op.css}{faint}" d="{path}"/>')
        labels.append(f'<text class="{op.css}{faint}" x="{x}" y="{y}">{op.label}</text>')
        ends = f"{_NODES[edge[0]][0]} to {_NODES[edge[1]][0]}"
        words.append(f"{ends}: {op.words}{'' if edge in live else ' (unused)'}")
    nodes = "".join(
        f'<circle cx="{x}" cy="{_Y}" r="10.5"/><text class="node" x="{x}" y="{_Y}">{text}</text>'
        for text, x in _NODES
    )
    spoken = escape("; ".join(words) or "no operator at all")
    return Markup(  # noqa: S704 - built from constants and escaped text only
        f'<svg class="cell" viewBox="0 -2 210 79" role="img" aria-label="cell: {spoken}">'
        f"<title>{spoken}</title>{''.join(lines)}{nodes}{''.join(labels)}</svg>"
    )


def legend_svg(name: str) -> Markup:
    """Line sample of operator `name` for the legend."""
    op = DRAWN[name]
    return Markup(  # noqa: S704 - constants only
        '<svg class="cell key" viewBox="0 0 60 14" aria-hidden="true">'
        f'<path class="{op.css}" d="M1 7H59"/><text class="{op.css}" x="30" y="7">{op.label}</text>'
        "</svg>"
    )
