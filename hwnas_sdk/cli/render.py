"""How answers look: tables for people, JSON for scripts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 400  # columns where stdout is no terminal: nothing is cut off


def stdout_console(stream: TextIO) -> Console:
    """Console on `stream`; as wide as needed where it is no terminal."""
    return Console(
        file=stream, width=None if stream.isatty() else WIDE, highlight=False, soft_wrap=False
    )


def json_text(document: object) -> str:
    """One JSON document with a final newline; what is not finite becomes null."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses, mappings, paths, numpy numbers and arrays."""
    match value:
        case None | bool() | int() | str():
            result: Any = value
        case float():
            result = value if math.isfinite(value) else None
        case Mapping():
            result = {str(key): plain(inner) for key, inner in value.items()}
        case PurePath():
            result = str(value)
        case _ if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            result = {field.name: plain(getattr(value, field.name)) for field in fields}
        case _ if hasattr(value, "tolist"):  # numpy, without importing it here
            result = plain(value.tolist())
        case _ if hasattr(value, "isoformat"):
            result = value.isoformat()
        case Iterable():
            result = [plain(inner) for inner in value]
        case _:
            raise TypeError(f"no JSON form for {type(value).__name__}")
    return result


def cell(value: object, *, digits: int = 4) -> str:
    """Text of one table cell: missing is ``-``, numbers have `digits` significant digits."""
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case float():
            text = _number(value, digits)
        case list() | tuple():
            text = ", ".join(cell(inner, digits=digits) for inner in value)
        case Mapping():
            text = ", ".join(f"{key} {cell(inner, digits=digits)}" for key, inner in value.items())
        case _:
            text = str(value)
    return text or "-"


def _number(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """Table of `rows`; columns that hold numbers only are aligned to the right."""
    body = [list(row) for row in rows]
    result = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        values = [row[i] for row in body if row[i] is not None]
        numbers = bool(values) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        result.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in body:
        result.add_row(*(Text(cell(value)) for value in row))
    return result


def facts(pairs: Mapping[str, object], *, title: str = "") -> Text:
    """One line for each name and value."""
    width = max((len(name) for name in pairs), default=0)
    lines = [Text(title, style="italic")] if title else []
    lines += [Text.assemble((name.ljust(width + 2), "bold"), cell(v)) for name, v in pairs.items()]
    return Text("\n").join(lines)
