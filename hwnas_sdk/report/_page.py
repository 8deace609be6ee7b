"""Templates filled, and a plot in the two widths a page carries."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup

from hwnas_sdk.report._figure import NARROW_IN, WIDE_IN

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_template(name: str, **context: Any) -> str:
    """Fill a template of this package; every value is escaped unless it is our own markup."""
    css = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    return _environment().get_template(name).render(css=Markup(css), **context)  # noqa: S704 - ours


class Draw(Protocol):
    """A plot waiting for the name that prefixes its ids and for its width."""

    def __call__(self, *, name: str, width_in: float) -> Markup:
        """Draw it."""


def both_widths(draw: Draw, name: str) -> Markup:
    """A plot drawn for a screen and for a phone; the style sheet shows one of them."""
    wide = draw(name=f"{name}-w", width_in=WIDE_IN)
    narrow = draw(name=f"{name}-n", width_in=NARROW_IN)
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)
