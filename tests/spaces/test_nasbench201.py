from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import SearchSpace
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.space import SpaceConformance

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)
cells = st.tuples(*[st.integers(0, 4)] * 6)


class TestConformance(SpaceConformance):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return get_space("nasbench201")


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201()


@pytest.fixture(scope="module")
def table(shared_data: Path) -> dict[str, list[object]]:
    return pq.read_table(shared_data / "nasbench201.parquet").to_pydict()


def test_official_order_of_all_rows(space: NasBench201, table: dict[str, list[object]]) -> None:
    assert table["index"] == list(range(15_625))
    for i, text in enumerate(table["arch"]):
        arch = space.from_index(i)
        assert space.encode(arch) == text
        assert space.decode(str(text)) == arch
        assert space.index(arch) == i


@pytest.mark.slow
def test_families_of_all_rows(space: NasBench201, table: dict[str, list[object]]) -> None:
    first: dict[object, int] = {}
    dead = 0
    for i, representative in enumerate(table["function_family_rep_index"]):
        arch = space.from_index(i)
        assert first.setdefault(space.family(arch), i) == representative
        dead += space.is_dead(arch)
    assert len(first) == 5_044
    assert dead == 341
    assert (~space.live_mask()).sum() == 341


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16_120"])
def test_macs_and_parameters_of_a_sample(
    space: NasBench201, table: dict[str, list[object]], dataset: str
) -> None:
    check_costs(space, table, dataset, range(0, 15_625, 97))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16_120"])
def test_macs_and_parameters_of_all_rows(
    space: NasBench201, table: dict[str, list[object]], dataset: str
) -> None:
    check_costs(space, table, dataset, range(15_625))


def check_costs(
    space: NasBench201, table: dict[str, list[object]], dataset: str, rows: range
) -> None:
    for i in rows:
        graph = space.layers(space.from_index(i), dataset=dataset)
        # The table stores millions as floating point; one operation is 1e-6 of its unit.
        assert round(table[f"{dataset}_flops_m"][i] * 1e6) == graph.macs, i  # type: ignore[operator]
        assert round(table[f"{dataset}_params_m"][i] * 1e6) == graph.n_params, i  # type: ignore[operator]


def test_size_check_of_the_specification(space: NasBench201) -> None:
    graph = space.layers(space.decode(CELL))
    assert round(graph.n_params / 1e6, 3) == 0.802
    assert round(graph.macs / 1e6, 2) == 113.95


@given(cells)
def test_round_trip(cell: tuple[int, ...]) -> None:
    space = NasBench201()
    arch = Architecture("nasbench201", cell)
    assert space.decode(space.encode(arch)) == arch
    assert space.from_index(space.index(arch)) == arch


@settings(max_examples=30)
@given(cells)
def test_swapping_inner_nodes_keeps_the_function(cell: tuple[int, ...]) -> None:
    """Without edge 1->2 the nodes 1 and 2 are interchangeable."""
    space = NasBench201()
    e01, e02, _, e03, e13, e23 = cell
    one = Architecture("nasbench201", (e01, e02, 0, e03, e13, e23))
    two = Architecture("nasbench201", (e02, e01, 0, e03, e23, e13))
    assert space.family(one) == space.family(two)
    assert Counter(layer.op for layer in space.layers(one)) == Counter(
        layer.op for layer in space.layers(two)
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CELL.replace("avg_pool_3x3~1", "avg_pool_5x5~1"), "edge 1->2"),
        (CELL.replace("avg_pool_3x3~1", "avg_pool_3x3~0"), "edge 1->2"),
        (CELL.replace("|avg_pool_3x3~1", ""), "node 2 has 2 incoming edges, found 1"),
        (CELL.replace("+", "-"), "expected 3 nodes"),
        ("#15625", "0..15624"),
        ("x" * 5000, "expected 3 nodes"),
    ],
)
def test_wrong_strings_show_the_offending_edge(space: NasBench201, text: str, shown: str) -> None:
    with pytest.raises(SpaceError) as caught:
        space.decode(text)
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_dead_cells_are_refused_for_deployment(space: NasBench201) -> None:
    dead = Architecture("nasbench201", (0,) * 6)
    assert space.layers(dead).macs > 0
    with pytest.raises(SpaceError) as caught:
        space.layers(dead, folded=True)
    assert caught.value.code == "dead_cell"


def test_folding_drops_dead_branches_and_merges_pools(space: NasBench201) -> None:
    # Node 2 is fed by a convolution but leads nowhere; two skips double the input.
    arch = Architecture("nasbench201", (1, 3, 0, 1, 1, 0))
    ops = Counter(layer.op for layer in space.layers(arch, folded=True))
    assert ops["zero"] == ops["identity"] == 0
    assert ops["conv"] == 1 + 2 * 3  # stem and two reductions; no convolution is left in the cells
    pools = Architecture("nasbench201", (4, 0, 0, 4, 1, 0))  # pool(x) on two paths
    folded = space.layers(pools, folded=True)
    assert sum(layer.op == "avg_pool" for layer in folded) == 15 + 2


def test_latin_hypercube_balances_choices(space: NasBench201) -> None:
    genotypes = space.latin_hypercube(100, np.random.default_rng(0))
    for column in genotypes.T:
        assert np.bincount(column, minlength=5).tolist() == [20] * 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[9] * 6], r"decision 0 must be in 0\.\.4, got 9"),
        ([[0, 0, 0, 0, 0, -1]], r"decision 5 must be in 0\.\.4, got -1"),
        ([[0.7] * 6], "whole numbers, got float64"),
        ([[1.0] * 6], "whole numbers, got float64"),
        ([[1] * 5], r"shape \(n, 6\), got \(1, 5\)"),
        ([1] * 6, r"shape \(n, 6\), got \(6,\)"),
        ([[1] * 6, [1] * 5], "whole numbers"),
    ],
)
def test_numbers_refuses_what_is_no_genotype(
    space: NasBench201, wrong: list[object], message: str
) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space.numbers(wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.7], "whole numbers, got float64"),
        ([True], "whole numbers, got bool"),
        ([-1, 3], r"0\.\.15624, got -1\.\.3"),
        ([15_625], r"0\.\.15624, got 15625"),
        (3, r"shape \(n,\), got \(\)"),
        ([[3]], r"shape \(n,\), got \(1, 1\)"),
    ],
)
def test_grid_refuses_what_is_no_number(space: NasBench201, wrong: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space.grid(np.asarray(wrong))
    assert "\n" not in str(caught.value)


def test_none_of_them_is_no_error(space: NasBench201) -> None:
    assert space.grid(np.array([])).shape == (0, 6)
    assert space.numbers(np.empty((0, 6), dtype=np.int64)).shape == (0,)


def test_numbers_of_a_large_space_do_not_list_it(monkeypatch):
    space = NasBench201()
    monkeypatch.setattr(NasBench201, "choices", (9,) * 12)  # 2 TiB of numbers
    numbers = np.array([0, 8, 9**12 - 1])
    assert space.grid(numbers)[:, -1].tolist() == [0, 8, 8]
    np.testing.assert_array_equal(space.numbers(space.grid(numbers)), numbers)
