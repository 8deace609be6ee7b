"""Answers for people and for scripts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.cli.render import cell, facts, json_text, plain, stdout_console, table


@dataclass(frozen=True)
class _Thing:
    name: str
    latency_ms: float | None
    path: Path


def test_json_takes_our_types() -> None:
    document = {
        "thing": _Thing("a", None, Path("x/y")),
        "array": np.array([[1.0, np.nan]]),
        "number": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "tuple": (1, 2),
        "when": datetime(2025, 1, 2, tzinfo=UTC),
        "infinite": float("inf"),
    }
    assert json.loads(json_text(document)) == {
        "thing": {"name": "a", "latency_ms": None, "path": "x/y"},
        "array": [[1.0, None]],
        "number": 0.5,
        "count": 3,
        "flag": True,
        "tuple": [1, 2],
        "when": "2025-01-02T00:00:00+00:00",
        "infinite": None,
    }


def test_json_refuses_what_has_no_form() -> None:
    with pytest.raises(TypeError, match="object"):
        plain(object())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(JSON)
def test_json_is_always_strict(document: object) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = json_text(document)
    assert json.loads(text, parse_constant=refuse) == plain(document)
    assert text.isascii()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (True, "yes"),
        (1.23456789, "1.235"),
        (123456.7, "123457"),
        (0.000012345, "1.234e-05"),
        (12, "12"),
        ((), "-"),
        (("a", 1.0), "a, 1"),
        ({"ort": "1.2"}, "ort 1.2"),
        ("", "-"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_table_outside_a_terminal_cuts_nothing_off_and_reads_no_markup() -> None:
    stream = io.StringIO()
    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
    console = stdout_console(stream)
    console.print(table(["arch", "note", "ms"], [[arch * 2, "[bold]x[/bold]", 1.5]]))
    console.print(facts({"where": "[red]"}))
    text = stream.getvalue()
    assert arch * 2 in text
    assert "[bold]x[/bold]" in text
    assert "[red]" in text
    assert "\x1b" not in text
