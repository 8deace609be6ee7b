"""Encodings: by hand on small cells, against layer graphs, and for a space that is not a cell."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.predictors.graphs import (
    ARCHITECTURE_FEATURES,
    BOS,
    EOS,
    N_SPECIAL,
    architecture_features,
    graph_features,
    n_tokens,
    one_hot,
    operator_graphs,
    tokens,
)
from hwnas_sdk.predictors.layer_graphs import PRUNED_TYPES
from hwnas_sdk.spaces.base import SearchSpace
from hwnas_sdk.spaces.nasbench201 import NasBench201

SPACE = NasBench201()
NONE, SKIP, CONV1, CONV3, POOL = range(5)


class Widths(SearchSpace):
    """Two convolutions; width and kernel are chosen, so decisions differ in their choices."""

    name = "widths"
    choices = (3, 2)
    datasets = ("images",)

    def encode(self, architecture):
        return str(architecture.genotype)

    def decode(self, text):
        raise NotImplementedError

    def family(self, architecture):
        return architecture.genotype

    def layers(self, architecture, *, dataset=None, folded=False):
        width, kernel = 8 * (architecture.genotype[0] + 1), (1, 3)[architecture.genotype[1]]
        return LayerGraph(
            architecture.id,
            (
                Layer("input", "input", (), (3, 8, 8)),
                Layer(
                    "a", "conv", ("input",), (width, 8, 8), {"kernel": kernel},
                    {"weight": (width, 3, kernel, kernel)},
                ),
                Layer(
                    "b", "conv", ("a",), (16, 4, 4), {"kernel": 1, "stride": 2},
                    {"weight": (16, width, 1, 1)},
                ),
                Layer("pool", "global_avg_pool", ("b",), (16,)),
            ),
            folded,
        )  # fmt: skip


def test_features_of_cells_are_those_of_their_layer_graphs():
    genes = SPACE.all_genotypes()[::313]
    for dataset in SPACE.datasets:
        features = architecture_features(SPACE, genes, dataset=dataset)
        graphs = [SPACE.layers(SPACE.architecture(g), dataset=dataset) for g in genes]
        np.testing.assert_array_equal(features, [graph_features(graph) for graph in graphs])


def test_features_of_a_published_cell():
    (row,) = architecture_features(SPACE, [[CONV3, CONV3, POOL, SKIP, CONV3, SKIP]])
    named = dict(zip(ARCHITECTURE_FEATURES, row, strict=True))
    assert named["flops"] == pytest.approx(113.95e6, rel=1e-4)
    assert named["params"] == pytest.approx(0.802e6, rel=1e-3)
    assert named["convs"] == 1 + 15 * 3 + 2 * 3
    assert (named["input_size"], named["first_channels"], named["last_channels"]) == (32, 16, 64)
    assert named["downsamplings"] == 2


@pytest.mark.alone
def test_the_whole_space_is_fast():
    genes = SPACE.all_genotypes()
    started = time.perf_counter()
    architecture_features(SPACE, genes)
    for form in ("plain", "help", "brp"):
        operator_graphs(SPACE, genes, form=form)
    tokens(SPACE, genes)
    one_hot(SPACE, genes)
    assert time.perf_counter() - started < 5.0  # building layer graphs alone takes over 15 s


def test_features_of_another_space():
    features = architecture_features(Widths(), [[0, 0], [2, 1]])
    np.testing.assert_array_equal(
        features,
        [[24 * 64 + 128 * 16, 24 + 128, 2, 8, 3, 8, 16, 1],
         [24 * 3 * 9 * 64 + 16 * 24 * 16, 24 * 27 + 24 * 16, 2, 8, 3, 24, 16, 1]],
    )  # fmt: skip


def test_tokens():
    sequence = tokens(SPACE, [[NONE, SKIP, CONV1, CONV3, POOL, NONE]])
    np.testing.assert_array_equal(
        sequence, [[BOS, *(N_SPECIAL + np.array([0, 1, 2, 3, 4, 0])), EOS]]
    )
    assert n_tokens(SPACE) == 8
    other = Widths()
    np.testing.assert_array_equal(
        tokens(other, [[2, 1], [0, 0]]), [[BOS, 5, 7, EOS], [BOS, 3, 6, EOS]]
    )
    assert n_tokens(other) == 8


def test_one_hot_is_a_bijection():
    encoded = one_hot(SPACE, SPACE.all_genotypes())
    assert encoded.shape == (15_625, 30)
    assert len(np.unique(encoded, axis=0)) == 15_625
    np.testing.assert_array_equal(encoded.sum(axis=1), 6.0)
    np.testing.assert_array_equal(one_hot(Widths(), [[2, 0]]), [[0, 0, 1, 1, 0]])


def test_plain_form():
    graphs = operator_graphs(SPACE, [[NONE, SKIP, CONV1, CONV3, POOL, NONE]])
    assert graphs.nodes.shape == (1, 8, 7)
    np.testing.assert_array_equal(graphs.nodes[0].argmax(axis=1), [0, 1, 2, 3, 4, 5, 1, 6])
    # Node 6 is edge 2->3: it reads what enters node 2, the edges 0->2 (node 2) and 1->2 (node 3).
    np.testing.assert_array_equal(np.flatnonzero(graphs.adjacency[0, 6]), [2, 3])
    np.testing.assert_array_equal(np.flatnonzero(graphs.adjacency[0, 7]), [4, 5, 6])
    assert not np.triu(graphs.adjacency[0]).any()
    assert graphs.readout is None


def test_help_form():
    graphs = operator_graphs(SPACE, [[NONE, SKIP, CONV1, CONV3, POOL, NONE]], form="help")
    assert graphs.nodes.shape == (1, 9, 8)
    np.testing.assert_array_equal(graphs.nodes[0].argmax(axis=1), [0, 4, 5, 2, 3, 1, 4, 6, 7])
    assert graphs.readout == 8
    np.testing.assert_array_equal(graphs.adjacency[0, 8], 1.0)
    np.testing.assert_array_equal(graphs.adjacency[0, :8, 8], 0.0)
    np.testing.assert_array_equal(np.diag(graphs.adjacency[0]), 1.0)
    plain = operator_graphs(SPACE, [[0] * 6]).adjacency[0]
    np.testing.assert_array_equal(graphs.adjacency[0, :8, :8], plain + np.eye(8))


def test_brp_form_contracts_removes_and_prunes():
    # 0->1 conv3, 1->3 skip; 0->2 conv1 with 2->3 none is dangling; 1->2 pool too; 0->3 none.
    graphs = operator_graphs(SPACE, [[CONV3, CONV1, POOL, NONE, SKIP, NONE]], form="brp")
    np.testing.assert_array_equal(np.flatnonzero(graphs.present[0]), [0, 1, 2, 8])
    np.testing.assert_array_equal(np.flatnonzero(graphs.nodes[0, 2]), [1])
    a = graphs.adjacency[0]
    np.testing.assert_array_equal(np.flatnonzero(a[0]), [0, 1, 2, 8])  # global reads all there are
    np.testing.assert_array_equal(np.flatnonzero(a[2]), [1, 2])  # conv3 reads the input
    np.testing.assert_array_equal(np.flatnonzero(a[8]), [2, 8])  # output reads conv3 past the skip
    assert graphs.readout == 0


def test_brp_form_bridges_a_chain_of_skips():
    graphs = operator_graphs(SPACE, [[SKIP, NONE, SKIP, NONE, NONE, SKIP]], form="brp")
    np.testing.assert_array_equal(np.flatnonzero(graphs.present[0]), [0, 1, 8])
    np.testing.assert_array_equal(np.flatnonzero(graphs.adjacency[0, 8]), [1, 8])


def test_brp_keeps_exactly_the_computing_operators_on_live_edges():
    from hwnas_sdk.predictors.encodings import live_edges

    genes = SPACE.all_genotypes()[::7]
    graphs = operator_graphs(SPACE, genes, form="brp")
    wanted = live_edges(genes) & (genes >= CONV1)
    np.testing.assert_array_equal(graphs.present[:, 2:8], wanted)
    assert graphs.present[:, [0, 1, 8]].all()
    # The output is cut off exactly for dead cells.
    cut_off = graphs.adjacency[:, 8, :8].sum(axis=1) == 0
    dead = [SPACE.is_dead(SPACE.architecture(g)) for g in genes]
    np.testing.assert_array_equal(cut_off, dead)


def test_other_spaces_are_chains():
    graphs = operator_graphs(Widths(), [[2, 1]])
    np.testing.assert_array_equal(graphs.nodes[0].argmax(axis=1), [0, 3, 5, 6])
    np.testing.assert_array_equal(graphs.adjacency[0], np.eye(4, k=-1))
    with_global = operator_graphs(Widths(), [[2, 1]], form="help")
    assert with_global.nodes.shape == (1, 5, 8)
    assert with_global.readout == 4


def test_the_pruned_form_of_another_space_is_that_of_its_layers():
    graphs = operator_graphs(Widths(), [[2, 1]], form="brp")
    types = [PRUNED_TYPES[i] for i in graphs.nodes[0].argmax(axis=1)]
    assert types == ["global", "input", "conv3", "conv1", "global_avg_pool", "output"]
    chain = np.eye(6) + np.eye(6, k=-1)
    chain[1, 0], chain[0] = 0.0, 1.0
    np.testing.assert_array_equal(graphs.adjacency[0], chain)


@pytest.mark.parametrize("function", [one_hot, tokens, operator_graphs, architecture_features])
@pytest.mark.parametrize("genes", [[[0] * 5], [0] * 6, [[0, 0, 0, 0, 0, 5]], [[-1, 0, 0, 0, 0, 0]]])
def test_what_is_no_genotype_is_refused(function, genes):
    with pytest.raises(SpaceError, match=r"nasbench201"):
        function(SPACE, np.array(genes))


@pytest.mark.parametrize("form", ["plain", "help", "brp"])
def test_no_architecture_is_no_graph(form):
    assert len(operator_graphs(SPACE, np.zeros((0, 6), dtype=np.int64), form=form)) == 0
