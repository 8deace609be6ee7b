"""From a matplotlib figure to an inline SVG that follows the page's light or dark scheme.

The figure is drawn in reserved colours, one per role; afterwards each becomes a CSS variable that
templates/style.css defines once per scheme. Nothing of matplotlib's global state is left changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLES: Final = (
    "ink", "muted", "grid", "panel", "predicted", "measured", "beaten", "invalid", "band", "band2",
    "r0", "r1", "r2", "r3",
)  # fmt: skip

# Reserved colours #0102xx: no real palette contains them, so replacing them is safe.
TOKENS: Final[Mapping[str, str]] = {role: f"#0102{i:02x}" for i, role in enumerate(ROLES, start=1)}

# The light scheme in plain colours, for pictures outside the page. As in templates/style.css.
LIGHT: Final[Mapping[str, str]] = {
    "ink": "#1b2330",
    "muted": "#5a6678",
    "grid": "#dfe4ea",
    "panel": "#ffffff",
    "predicted": "#b65205",
    "measured": "#1f5fbf",
    "beaten": "#6b7686",
    "invalid": "#b3202c",
    "band": "#d3ead9",
    "band2": "#eef3e2",
    "r0": "#1f5fbf",
    "r1": "#0f7b6c",
    "r2": "#8a3fa8",
    "r3": "#a86a00",
}


@contextmanager
def drawing(theme: Mapping[str, str]) -> Iterator[None]:
    """Draw in the colours of `theme`; every matplotlib setting is restored afterwards."""
    import matplotlib as mpl

    ink, muted = theme["ink"], theme["muted"]
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "hwnas",
            "text.parse_math": False,
            "text.color": ink,
            "font.family": ["DejaVu Sans"],
            "font.size": 9,
            "axes.facecolor": "none",
            "axes.edgecolor": muted,
            "axes.labelcolor": ink,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.formatter.useoffset": False,
            "grid.color": theme["grid"],
            "grid.linewidth": 0.7,
            "xtick.color": muted,
            "ytick.color": muted,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "figure.facecolor": "none",
        }
    ):
        yield


_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"^.*?(?=<svg)", re.DOTALL), ""),  # XML prolog and DTD
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r"<style.*?</style>", re.DOTALL), ""),  # would apply to the whole page
    (re.compile(r"\s*font-family:[^;\"]*;?"), ""),  # inherit the page's font
    (re.compile(r"xlink:href"), "href"),
    (re.compile(r"\s*\n\s*"), " "),
)
_VIEW_BOX = re.compile(r'viewBox="([^"]*)"')
_ROOT = re.compile(r"<svg[^>]*>")
_ID = re.compile(r'\bid="([^"]*)"')
_USE = re.compile(r'(<use href="#)')
_URL = re.compile(r"url\(#")
_TOKEN = re.compile(r"#0102[0-9a-f]{2}")
_VARIABLE = {token: f"var(--{role})" for role, token in TOKENS.items()}


def inline_svg(
    figure: Figure, name: str, *, label: str, titles: Mapping[str, str] | None = None
) -> Markup:
    """SVG element for an HTML page; the same figure gives the same bytes.

    Args:
        figure: drawn in `TOKENS` colours inside `drawing(TOKENS)`, which must still be active.
        name: unique on the page; prefixes every id.
        label: what a screen reader says.
        titles: gid of an artist -> tool tip shown when the pointer rests on it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    view_box = _VIEW_BOX.search(text)
    assert view_box is not None
    root = (
        f'<svg class="plot" viewBox="{view_box.group(1)}" role="img" aria-label="{escape(label)}">'
    )
    text = _ROOT.sub(lambda _: root, text, count=1)
    for gid, title in (titles or {}).items():
        tag = f'<g id="{gid}">'
        text = text.replace(tag, f"{tag}<title>{escape(title)}</title>")
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _USE.sub(rf"\1{name}-", text)
    text = _URL.sub(f"url(#{name}-", text)
    text = _TOKEN.sub(lambda match: _VARIABLE[match.group()], text)
    return Markup(text.strip())  # noqa: S704 - matplotlib escapes every text it is given
