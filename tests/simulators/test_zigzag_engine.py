"""The engine itself: what must hold of its answers whatever the numbers are."""

from __future__ import annotations

import pytest

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.simulators.description import AcceleratorDescription, load_description, shipped_path
from hwnas_sdk.simulators.workload import ArrayWork
from hwnas_sdk.simulators.zigzag_engine import ZigZagEngine

SMALL = ArrayWork(K=8, C=4, G=1, OX=8, OY=8, FX=3, FY=3, pad_x=1, pad_y=1)
POINT = ArrayWork(K=8, C=4, G=1, OX=8, OY=8, FX=1, FY=1)
NAMES = ("eyeriss", "fpga")


def described(name: str) -> AcceleratorDescription:
    """A shipped accelerator with a search that is over in a moment."""
    content = load_description(shipped_path(name)).model_dump()
    content["mapping"] |= {"candidates": 1, "loop_factors": 2, "innermost": ["OX", "FX", "FY"]}
    return AcceleratorDescription.model_validate(content)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_that_no_mapping_can_beat(name: str) -> None:
    description = described(name)
    engine = ZigZagEngine(description)
    for work in (SMALL, POINT):
        cost = engine.evaluate(work)
        assert cost.cycles >= cost.compute_cycles >= work.macs / description.array.n_elements
        words = 4 * 64 + 8 * 64 + work.K * work.C * work.FX * work.FY
        # Ports move whole words; the last access of each operand may be a partial one.
        assert cost.outer_bytes >= 0.98 * 2 * words
        least_pj = work.macs * description.array.mac_pj + cost.outer_energy_pj
        assert cost.energy_pj >= least_pj
    assert engine.evaluate(work) == cost


@pytest.mark.slow
def test_depthwise_strided_and_linear_layers_have_a_mapping() -> None:
    engine = ZigZagEngine(described("eyeriss"))
    works = [
        ArrayWork(K=1, C=1, G=8, OX=4, OY=4, FX=3, FY=3, pad_x=1, pad_y=1),
        ArrayWork(K=8, C=4, G=1, OX=4, OY=4, FX=3, FY=3, stride_x=2, stride_y=2),
        ArrayWork(K=10, C=64, G=1, OX=1, OY=1, FX=1, FY=1),
    ]
    for work in works:
        assert engine.evaluate(work).cycles >= work.macs / 168


def test_a_layer_that_fits_nowhere_is_refused() -> None:
    content = described("eyeriss").model_dump()
    for memory in content["memories"][:3]:
        memory["size_bytes"] = 1
    with pytest.raises(ExportError) as caught:
        ZigZagEngine(AcceleratorDescription.model_validate(content)).evaluate(POINT)
    assert caught.value.code == "no_mapping"


@pytest.mark.slow
def test_layers_of_the_space_take_the_passes_that_arithmetic_says() -> None:
    engine = ZigZagEngine(load_description(shipped_path("eyeriss")))
    for channels, size in ((16, 32), (32, 16), (64, 8)):
        three = ArrayWork(channels, channels, 1, size, size, 3, 3, pad_x=1, pad_y=1)
        one = ArrayWork(channels, channels, 1, size, size, 1, 1)
        assert engine.evaluate(three).compute_cycles == 9 * 16**2 * 1024 / 96
        assert engine.evaluate(one).compute_cycles == 16**2 * 1024 / 64
