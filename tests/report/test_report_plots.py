"""The plots: well-formed, deterministic, and matplotlib left as it was found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from report_builders import make_candidate, make_drift, make_report, make_round

from hwnas_sdk.report import HypervolumePoint, front_png
from hwnas_sdk.report._run_plots import (
    distribution_svg,
    drift_limit_pct,
    drift_svg,
    hypervolume_svg,
)
from hwnas_sdk.report._svg import LIGHT, ROLES, TOKENS
from hwnas_sdk.report.plots import front_svg, scatter_svg


def test_front_is_xml_with_axes_and_tips() -> None:
    svg = front_svg(make_report(), 0, name="f", width_in=6.0)
    root = ET.fromstring(svg)
    words = " ".join(t.text or "" for t in root.iter("text"))
    assert "latency, ms" in words
    assert "error, %" in words
    assert "#1004: predicted 20.00 ms, measured 22.00 ± 0.04 ms" in svg
    assert 'href="#c1-4"' in svg
    assert "beaten once measured" in words
    assert all(i.startswith("f-") for i in re.findall(r'\bid="([^"]*)"', svg))


def test_wide_range_becomes_logarithmic_with_plain_ticks() -> None:
    rows = (make_candidate(1, 80.0, 0.5), make_candidate(2, 5.0, 300.0))
    svg = front_svg(make_report(rounds=(make_round(rows),)), 0, name="f", width_in=6.0)
    assert svg.count("log scale") == 2
    assert ">100<" in svg


def test_invalid_is_marked_in_the_scatter() -> None:
    svg = scatter_svg(make_report(), name="s", width_in=6.0)
    assert "no valid measurement" in svg
    assert "prediction = measurement" in svg


def test_drift_band_and_single_point() -> None:
    one = make_report(drift=make_drift(1), device={"machine": "bare"})
    assert "±3 % of the start" in drift_svg(one, name="d", width_in=6.0)
    long = make_report(drift=make_drift(80))
    svg = drift_svg(long, name="d", width_in=6.0)
    assert "±10 % of the start" in svg
    assert "min" in svg


def test_drift_limit_follows_the_machine() -> None:
    assert drift_limit_pct("bare") == 3.0
    assert drift_limit_pct("virtualised") == 10.0


def test_hypervolume_history() -> None:
    points = [
        HypervolumePoint(label=f"r{i}", predicted=None, measured=0.7, measured_so_far=0.9)
        for i in range(2)
    ]
    svg = hypervolume_svg(points, "imported", name="h", width_in=6.0)
    assert "imported, all so far" in svg
    assert "predicted" not in svg


def test_hypervolume_names_rounds_while_there_is_room() -> None:
    points = [
        HypervolumePoint(label=f"Round {i}", predicted=0.5, measured=0.6, n_so_far=24 * i)
        for i in range(1, 21)
    ]
    assert hypervolume_svg(points, "measured", name="h", width_in=7.8).count(" networks<") == 7
    assert hypervolume_svg(points, "measured", name="h", width_in=4.3).count(" networks<") == 4
    few = hypervolume_svg(points[:3], "measured", name="h", width_in=7.8)
    assert all(f"{n} networks" in few for n in (24, 48, 72))


def test_distribution_with_very_few_samples() -> None:
    svg = distribution_svg([[1.0]], name="x", width_in=6.5)
    ET.fromstring(svg)
    assert "90th percentile" not in svg


def test_tokens_are_distinct_and_complete() -> None:
    assert set(LIGHT) == set(TOKENS) == set(ROLES)
    assert len(set(TOKENS.values())) == len(ROLES)


def test_light_palette_is_that_of_the_page() -> None:
    import hwnas_sdk.report

    css = (Path(hwnas_sdk.report.__file__).parent / "templates" / "style.css").read_text()
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.split("@media")[0]))
    assert {role: light[role] for role in ROLES} == LIGHT


def test_matplotlib_is_left_alone() -> None:
    before = dict(mpl.rcParams)
    front_svg(make_report(), 0, name="f", width_in=6.0)
    assert dict(mpl.rcParams) == before


def test_import_is_light() -> None:
    heavy = "('matplotlib', 'jinja2', 'torch')"
    code = f"import sys, hwnas_sdk.report; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_front_png(tmp_path: Path) -> None:
    path = front_png(make_report(), tmp_path / "front.png")
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert front_png(make_report(), path).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["front.png"]
    with pytest.raises(ValueError, match="no verified front"):
        front_png(make_report(rounds=()), path)
