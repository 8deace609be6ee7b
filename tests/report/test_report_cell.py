"""The small picture of a cell."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.report.cell import DRAWN, cell_operators, cell_svg, legend_svg, live_edges
from hwnas_sdk.spaces.nasbench201 import EDGES, OPERATORS, NasBench201

SPACE = NasBench201()
X = "\N{MULTIPLICATION SIGN}"
EXAMPLE = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def test_edges_and_labels() -> None:
    svg = cell_svg(EXAMPLE)
    assert svg is not None
    root = ET.fromstring(svg)
    assert len(root.findall("path")) == 4, "none edges are left out"
    labels = [t.text for t in root.findall("text") if t.get("class") != "node"]
    assert labels == [f"3{X}3", f"1{X}1", "skip", "pool"]
    assert len(root.findall("circle")) == 4
    assert f"in to 1: 3{X}3 convolution" in (root.get("aria-label") or "")


def test_operators_without_effect_are_faint() -> None:
    arch = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    svg = cell_svg(arch)
    assert svg is not None
    assert svg.count(" unused") == 4, "two lines and two labels"
    assert f"in to 1: 3{X}3 convolution (unused)" in svg


@pytest.mark.parametrize("text", ["", "resnet.onnx", "|nor_conv_3x3~0|", "<script>"])
def test_not_a_cell(text: str) -> None:
    assert cell_svg(text) is None
    assert cell_operators(text) is None


@pytest.mark.parametrize("name", list(DRAWN))
def test_legend(name: str) -> None:
    assert DRAWN[name].label in legend_svg(name)


def test_every_operator_but_none_is_drawn() -> None:
    assert set(DRAWN) == set(OPERATORS) - {"none"}
    looks = [(op.css, op.label) for op in DRAWN.values()]
    assert len({css for css, _ in looks}) == len({label for _, label in looks}) == len(DRAWN)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 4)] * 6))
def test_any_cell_is_well_formed(genotype: tuple[int, ...]) -> None:
    arch = SPACE.architecture(genotype)
    svg = cell_svg(SPACE.encode(arch))
    assert svg is not None
    root = ET.fromstring(svg)
    assert len(root.findall("path")) == sum(OPERATORS[g] != "none" for g in genotype)
    live = live_edges(tuple(OPERATORS[g] for g in genotype))
    assert bool(live) == (not SPACE.is_dead(arch))
    assert live <= set(EDGES)
