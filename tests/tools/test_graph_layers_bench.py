"""The two kinds of graph layers that are timed compute the same, so their times compare."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

import graph_layers_bench as bench  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [bench.cell_graphs, bench.network_graphs])
def test_dense_and_geometric_layers_answer_alike(graphs):
    dense, geometric = bench.steps(*graphs(5))
    answer = dense()
    assert answer.shape == (5, bench.WIDTH)
    assert answer.abs().max() > 0
    torch.testing.assert_close(geometric(), answer)


@pytest.mark.slow
def test_a_figure_is_the_ratio_of_the_two():
    row = bench.figures([2], repeat=1)[0]
    assert row["geometric_over_dense"] == row["geometric_ms"] / row["dense_ms"]
    assert row["places"] == 9
