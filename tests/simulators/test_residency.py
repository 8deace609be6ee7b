"""Feature maps that stay on the chip between layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas_sdk.simulators.description import AcceleratorDescription, load_description, shipped_path
from hwnas_sdk.simulators.elementwise import elementwise_cost
from hwnas_sdk.simulators.residency import stays_on_chip
from hwnas_sdk.simulators.simulator import Simulator
from hwnas_sdk.simulators.workload import ArrayWork, ElementWork
from hwnas_sdk.simulators.zigzag_engine import ArrayCost, ZigZagEngine
from hwnas_sdk.spaces import get_space

CONV = ArrayWork(K=8, C=4, G=1, OX=8, OY=8, FX=3, FY=3, pad_x=1, pad_y=1)


def described(name: str, **changed: object) -> AcceleratorDescription:
    """A shipped accelerator whose maps stay on the chip, with a short search."""
    content = load_description(shipped_path(name)).model_dump() | {"feature_maps": "on_chip"}
    content["mapping"] |= {"candidates": 1, "loop_factors": 2}
    return AcceleratorDescription.model_validate(content | changed)


def test_shipped_accelerators_keep_no_map_on_the_chip() -> None:
    for name in ("eyeriss", "fpga"):
        assert load_description(shipped_path(name)).feature_maps == "outermost"
        assert not stays_on_chip(CONV, (), described(name, feature_maps="outermost"))


def test_input_and_output_have_to_fit_together() -> None:
    # FPGA: 73,984 bytes for inputs, 128 KiB for outputs. Eyeriss: 100 KiB for both.
    fpga, eyeriss = described("fpga"), described("eyeriss")
    full = ElementWork("relu", n_ops=1, words_in=73_984 // 2, words_out=64 * 1024)
    assert stays_on_chip(full, (), fpga)
    assert not stays_on_chip(replace(full, words_in=full.words_in + 1), (), fpga)
    assert not stays_on_chip(replace(full, words_out=full.words_out + 1), (), fpga)
    assert not stays_on_chip(full, (), eyeriss)
    half = replace(full, words_in=25 * 1024, words_out=25 * 1024)
    assert stays_on_chip(half, (), eyeriss)
    assert not stays_on_chip(replace(half, words_out=half.words_out + 1), (), eyeriss)


def test_the_networks_own_input_comes_from_outside() -> None:
    asked: list[ArrayWork] = []

    def evaluate(work: ArrayWork) -> ArrayCost:
        asked.append(work)
        return ArrayCost(
            cycles=1.0, compute_cycles=1.0, energy_pj=1.0, outer_energy_pj=0.0, outer_bytes=0.0,
            unrolling="none", n_mappings=1,
        )  # fmt: skip

    space = get_space("nasbench201")
    simulator = Simulator(described("fpga"), evaluate=evaluate)
    simulator.cost(space.layers(space.architecture((3, 2, 4, 1, 3, 2))))
    assert {work.on_chip for work in asked if work.C == 3} == {False}
    assert {work.on_chip for work in asked if work.C != 3} == {True}
    assert simulator.facts()["feature_maps"] == "on_chip"


def test_elementwise_layers_move_at_the_width_of_the_buffers() -> None:
    """By hand: 16 words per cycle into the array and 32 out of it on the FPGA, no DDR3 word."""
    pool = ElementWork("avg_pool", n_ops=256, words_in=3200, words_out=3200, on_chip=True)
    cost = elementwise_cost(pool, described("fpga"))
    assert cost.cycles == 3200 / 16
    assert (cost.outer_bytes, cost.outer_energy_pj) == (0.0, 0.0)
    eyeriss = elementwise_cost(pool, described("eyeriss"))
    assert eyeriss.energy_pj == pytest.approx(6400 * 13.2 + 256 * 2.2)


@pytest.mark.parametrize("name", ["eyeriss", "fpga"])
def test_the_engine_moves_only_weights_to_and_from_outside(name: str) -> None:
    engine = ZigZagEngine(described(name))
    outside, inside = (engine.evaluate(replace(CONV, on_chip=on)) for on in (False, True))
    weight_bytes = 2 * CONV.K * CONV.C * 9
    assert inside.outer_bytes == pytest.approx(weight_bytes, rel=0.02)
    assert outside.outer_bytes > inside.outer_bytes
    assert inside.compute_cycles <= inside.cycles <= outside.cycles
    assert inside.energy_pj <= outside.energy_pj
