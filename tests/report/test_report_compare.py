"""Two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report_builders import make_arch

from hwnas_sdk.report import ComparisonPair, ComparisonSide, render_comparison, write_comparison


def side(label: str, **fields: Any) -> ComparisonSide:
    values: dict[str, Any] = {
        "label": label, "run_id": f"run-{label}", "created_at": "2026-01-02",
        "sdk_version": "0.1.0",
        "device": {"name": "pi", "soc": "BCM2711", "machine": "bare"},
        "environment": {"kernel": "6.1"}, "settings": {"name": "quick"},
    }  # fmt: skip
    return ComparisonSide(**{**values, **fields})


PAIRS = (
    ComparisonPair(arch=make_arch(1), a_ms=10.0, b_ms=9.0, a_ci95_ms=0.1, b_ci95_ms=0.1),
    ComparisonPair(arch=make_arch(2), a_ms=10.0, b_ms=11.5, a_ci95_ms=0.1, b_ci95_ms=0.1),
    ComparisonPair(arch=make_arch(3), a_ms=4.0, b_ms=4.04, a_ci95_ms=0.1, b_ci95_ms=0.1),
    ComparisonPair(arch=make_arch(4), a_ms=4.0, b_ms=None, b_flags=("throttled",)),
)


def test_worst_first_and_regression_named() -> None:
    text = render_comparison(side("old"), side("new"), PAIRS, limit_pct=5.0, spearman=0.9)
    assert "B (new) is 1.0 % slower than A (old) in the median of 3 networks" in text
    assert "Regression: 1 network is slower by more than the limit of 5 %, beyond" in text
    assert text.index("#2<") < text.index("+15.0 %", text.index("<tbody>"))
    rows = text[text.index("<tbody>") :]
    order = [rows.index(f">#{i}<") for i in (2, 3, 1, 4)]
    assert order == sorted(order)
    for part in ("1.150", "\u221210.0 %", "within the 95 % intervals", "0.900"):
        assert part in text
    assert "no valid measurement in B" in text
    assert "the board throttled" in text


def test_no_regression_and_no_limit() -> None:
    text = render_comparison(side("old"), side("new"), PAIRS, limit_pct=50.0)
    assert "No network is slower by more than the limit of 50 %" in text
    assert (
        "limit" not in render_comparison(side("old"), side("new"), PAIRS[3:]).split("</style>")[1]
    )


def test_what_differs_is_said() -> None:
    other = side(
        "new", environment={"kernel": "6.6"}, settings={"name": "standard"}, origin="imported"
    )
    text = render_comparison(side("old"), other, PAIRS)
    assert "environment: kernel" in text
    assert "The two runs were measured with different settings" in text
    assert "The latencies of A are measured, those of B imported." in text
    assert "Nothing that was recorded." in render_comparison(side("a"), side("b"), PAIRS[3:])


def test_nothing_in_common() -> None:
    lonely = (ComparisonPair(arch=make_arch(1), a_ms=None, b_ms=2.0),)
    for pairs in ((), lonely):
        text = render_comparison(side("a"), side("b"), pairs)
        assert "no validly measured network in common" in text


def test_hostile_and_deterministic(tmp_path: Path) -> None:
    bad = side('<script>alert("1")</script>')
    text = render_comparison(bad, side("b"), PAIRS)
    assert "<script" not in text
    assert "http:" not in text
    assert "https:" not in text
    path = write_comparison(bad, side("b"), PAIRS, tmp_path / "c.html")
    assert path.read_text(encoding="utf-8") == text


def test_an_unclear_change_is_no_regression_and_letters_get_names() -> None:
    noisy = (ComparisonPair(arch=make_arch(1), a_ms=10.0, b_ms=12.0, a_ci95_ms=1.5, b_ci95_ms=1.5),)
    text = render_comparison(side("A"), side("B"), noisy, limit_pct=5.0)
    assert "No network is slower" in text
    assert "within the 95 % intervals" in text
    assert "B (pi, run-B) is 20.0 % slower than A (pi, run-A)" in text


def test_pair_arithmetic() -> None:
    assert PAIRS[1].change_pct is not None
    assert round(PAIRS[1].change_pct, 6) == 15.0
    assert PAIRS[1].is_clear
    assert not PAIRS[2].is_clear
    assert PAIRS[3].change_pct is None
    assert not PAIRS[3].is_clear
