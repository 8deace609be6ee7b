from __future__ import annotations

from pathlib import Path

import pytest

from hwnas_sdk.simulators.description import AcceleratorDescription, load_description, shipped_path
from hwnas_sdk.simulators.elementwise import elementwise_cost
from hwnas_sdk.simulators.simulator import Simulator
from hwnas_sdk.simulators.workload import ArrayWork, ElementWork
from hwnas_sdk.simulators.zigzag_engine import ArrayCost
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
EYERISS = load_description(shipped_path("eyeriss"))
FPGA = load_description(shipped_path("fpga"))
CELL = SPACE.architecture((3, 2, 4, 1, 3, 0))


class Counter:
    """Stands for the engine: a cycle and 10 pJ (4 of them outside) per multiply-accumulate."""

    def __init__(self) -> None:
        self.asked: list[ArrayWork] = []

    def __call__(self, work: ArrayWork) -> ArrayCost:
        self.asked.append(work)
        macs = float(work.macs)
        return ArrayCost(
            cycles=macs, compute_cycles=macs, energy_pj=10 * macs, outer_energy_pj=4 * macs,
            outer_bytes=2.0, unrolling="none", n_mappings=1,
        )  # fmt: skip


def test_a_network_is_the_sum_of_its_layers_each_evaluated_once() -> None:
    engine = Counter()
    simulator = Simulator(EYERISS, evaluate=engine)
    graph = SPACE.layers(CELL)
    cost = simulator.cost(graph)
    assert len(engine.asked) == len(set(engine.asked)) == 12
    assert sum(n for _, n in cost.layers) == len(graph)
    rows = cost.by_op()
    # The bias additions of the classifier, which MACs count, are no work of the array.
    array_macs = graph.macs - 10
    on_array = rows["conv"]["latency_ms"] + rows["linear as conv"]["latency_ms"]
    assert on_array == pytest.approx(array_macs / 200e3)
    assert rows["conv"]["energy_mj"] == pytest.approx(6e-9 * (array_macs - 640))  # chip only
    assert cost.latency_ms == pytest.approx(sum(row["latency_ms"] for row in rows.values()))
    assert cost.energy_mj == pytest.approx(sum(row["energy_mj"] for row in rows.values()))
    assert rows["batch_norm"]["kind"] == rows["zero"]["kind"] == "free"
    assert rows["zero"]["why"]
    assert rows["avg_pool"]["kind"] == "modelled"


def test_pooling_as_a_dense_convolution_says_so() -> None:
    simulator = Simulator(EYERISS, pooling="dense_conv", evaluate=Counter())
    rows = simulator.cost(SPACE.layers(CELL)).by_op()
    assert rows["avg_pool as conv"]["kind"] == "engine"
    assert "avg_pool" not in rows
    assert simulator.facts()["pooling"] == "dense_conv"


def test_constant_power_makes_energy_of_latency() -> None:
    cost = Simulator(FPGA, evaluate=Counter()).cost(SPACE.layers(CELL))
    assert cost.energy_mj == pytest.approx(9.63 * cost.latency_ms)


def test_costs_survive_the_process_and_belong_to_one_description(tmp_path: Path) -> None:
    first, second, other = Counter(), Counter(), Counter()
    graph = SPACE.layers(CELL)
    cost = Simulator(EYERISS, cache_folder=tmp_path, evaluate=first).cost(graph)
    again = Simulator(EYERISS, cache_folder=tmp_path, evaluate=second).cost(graph)
    assert again == cost
    assert not second.asked
    changed = EYERISS.model_copy(update={"clock_mhz": 100.0})
    fresh = AcceleratorDescription.model_validate(changed.model_dump())
    Simulator(fresh, cache_folder=tmp_path, evaluate=other).cost(graph)
    assert other.asked == first.asked


def test_a_damaged_file_is_evaluated_again(tmp_path: Path) -> None:
    graph = SPACE.layers(CELL)
    cost = Simulator(EYERISS, cache_folder=tmp_path, evaluate=Counter()).cost(graph)
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == 12
    files[0].write_text("{", encoding="utf-8")
    files[1].write_text(files[2].read_text(encoding="utf-8"), encoding="utf-8")
    engine = Counter()
    assert Simulator(EYERISS, cache_folder=tmp_path, evaluate=engine).cost(graph) == cost
    assert len(engine.asked) == 2


def test_the_slower_of_moving_and_operating_counts() -> None:
    """By hand: 16 words per cycle each way on Eyeriss; 74 bits both ways together on the FPGA."""
    moving = ElementWork("add", n_ops=160, words_in=320, words_out=160)
    cost = elementwise_cost(moving, EYERISS)
    assert cost.cycles == 320 / 16
    assert cost.outer_bytes == 2 * 480
    assert cost.outer_energy_pj == pytest.approx(480 * 440.0)
    assert cost.energy_pj == pytest.approx(480 * (440.0 + 2 * 13.2) + 160 * 2.2)
    assert elementwise_cost(moving, FPGA).cycles == pytest.approx(480 * 16 / 74)
    operating = ElementWork("gelu", n_ops=168_000, words_in=16, words_out=16)
    assert elementwise_cost(operating, EYERISS).cycles == 1000.0
