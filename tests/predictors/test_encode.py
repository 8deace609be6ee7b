"""Every encoding on every registered space, and on spaces that are not NAS-Bench-201."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_space import Chains, Listed

from hwnas_sdk.core.errors import ConfigError, SpaceError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.predictors.encode import ENCODINGS, encode, structural, structural_names
from hwnas_sdk.predictors.encodings import checked_cells, live_edges, structural_features
from hwnas_sdk.predictors.graphs import OperatorGraphs, n_tokens, operator_graphs
from hwnas_sdk.predictors.layer_graphs import PRUNED_TYPES, layer_features, pruned_graphs
from hwnas_sdk.predictors.registry import transfer_model
from hwnas_sdk.spaces import get_space, space_names
from hwnas_sdk.spaces.base import SearchSpace


class Lookalike(Listed):
    """Six decisions of five, as NAS-Bench-201 has, but a chain: skip, zero beside a skip, convs."""

    name = "lookalike"
    choices = (5,) * 6

    def layers(self, architecture, *, dataset=None, folded=False):
        layers, below = [Layer("input", "input", (), (3, 8, 8))], "input"

        def put(name, op, *inputs, **attrs):
            params = {}
            if op == "conv":
                params = {"weight": (3, 3, attrs["kernel"], attrs["kernel"])}
            layers.append(Layer(name, op, inputs, (3, 8, 8), attrs, params))
            return name

        for i, gene in enumerate(architecture.genotype):
            if gene == 0:
                below = put(f"b{i}.skip", "identity", below)
            elif gene == 1:
                nothing = put(f"b{i}.zero", "zero", put(f"b{i}.dead", "conv", below, kernel=5))
                below = put(f"b{i}.sum", "add", below, nothing)
            else:
                kernel = 2 * gene - 1  # 3, 5, 7
                conv = put(f"b{i}.conv", "conv", put(f"b{i}.act", "relu", below), kernel=kernel)
                below = put(f"b{i}.sum", "add", conv, below)
        layers.append(Layer("pool", "global_avg_pool", (below,), (3,)))
        return LayerGraph(architecture.id, tuple(layers), folded)


class Fbnet(Chains):
    """As many architectures as FBNet: more than can be numbered."""

    name = "fbnet"
    choices = (9,) * 22


SPACES = [*(get_space(name) for name in space_names()), Chains(), Lookalike()]
everywhere = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
few = settings(max_examples=15)  # layer graphs take a millisecond each
every_kind = pytest.mark.parametrize("kind", ENCODINGS)


def some(space: SearchSpace, seed: int, n: int = 6):
    return space.uniform(n, np.random.default_rng(seed))


def parts(encoded):
    if isinstance(encoded, OperatorGraphs):
        return [encoded.nodes, encoded.adjacency]
    return [encoded]


def code(encoded, row):
    """One row, without the empty places that only the company of larger graphs makes."""
    if not isinstance(encoded, OperatorGraphs):
        return tuple(encoded[row])
    there = encoded.present[row]
    return (
        *encoded.nodes[row][there].ravel(),
        *encoded.adjacency[row][np.ix_(there, there)].ravel(),
    )


@everywhere
@every_kind
@few
@given(seed=st.integers(0, 2**32))
def test_one_finite_row_per_architecture_the_same_each_time(space, kind, seed):
    genes = some(space, seed)
    before = genes.copy()
    encoded = encode(space, genes, kind)
    np.testing.assert_array_equal(genes, before)
    for part, again in zip(parts(encoded), parts(encode(space, genes, kind)), strict=True):
        assert len(part) == len(genes)
        assert np.isfinite(part).all()
        np.testing.assert_array_equal(part, again)
    alone = encode(space, genes[2:3], kind)
    np.testing.assert_allclose(code(alone, 0), code(encoded, 2), rtol=1e-12)
    assert all(len(part) == 0 for part in parts(encode(space, genes[:0], kind)))


@everywhere
@few
@given(seed=st.integers(0, 2**32))
def test_shapes_are_those_that_are_documented(space, seed):
    genes, d = some(space, seed), space.n_decisions
    assert encode(space, genes, "features").shape == (6, 8)
    assert encode(space, genes, "structural").shape == (6, len(structural_names(space)))
    assert encode(space, genes, "tokens").shape == (6, d + 2)
    assert encode(space, genes, "tokens").max() < n_tokens(space)
    assert encode(space, genes, "one-hot").shape == (6, sum(space.choices))
    plain, helped = encode(space, genes, "graph"), encode(space, genes, "graph-help")
    assert (plain.nodes.shape[1], plain.readout) == (d + 2, None)
    assert (helped.nodes.shape[1], helped.readout) == (d + 3, d + 2)
    for kind in ("graph", "graph-help", "graph-brp"):
        graphs = encode(space, genes, kind)
        n_places = graphs.nodes.shape[1]
        assert graphs.adjacency.shape == (6, n_places, n_places)
        np.testing.assert_array_equal(graphs.nodes.sum(axis=2), graphs.present)
        # Nothing reads, or is read by, a place without a node.
        absent = ~graphs.present
        assert not graphs.adjacency[absent].any()
        assert not graphs.adjacency.transpose(0, 2, 1)[absent].any()


@everywhere
@pytest.mark.parametrize("kind", [kind for kind, e in ENCODINGS.items() if e.injective])
@few
@given(seed=st.integers(0, 2**32))
def test_different_genotypes_have_different_codes(space, kind, seed):
    genes = some(space, seed, n=8)
    genes[1] = genes[0]
    genes[1, seed % space.n_decisions] = (genes[0, seed % space.n_decisions] + 1) % min(
        space.choices
    )
    encoded = encode(space, genes, kind)
    codes = {code(encoded, row) for row in range(8)}
    assert len(codes) == len({tuple(row) for row in genes.tolist()})


@everywhere
@every_kind
@pytest.mark.parametrize("wrong", ["short", "flat", "large", "negative", "floats", "ragged"])
def test_what_is_no_genotype_matrix_is_refused_in_one_line(space, kind, wrong):
    genes = some(space, 0)
    bad = {
        "short": genes[:, 1:],
        "flat": genes[0],
        "large": genes + max(space.choices),
        "negative": genes - max(space.choices),
        "floats": genes + 0.9,
        "ragged": [[0], [0, 1]],
    }[wrong]
    with pytest.raises(SpaceError, match=space.name) as caught:
        encode(space, bad, kind)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_and_form_name_those_there_are():
    cells = np.zeros((1, 6), dtype=np.int64)
    with pytest.raises(ConfigError, match="one-hot"):
        encode(SPACES[0], cells, "onehot")
    with pytest.raises(ConfigError, match=r"'HELP'.*plain, help, brp"):
        operator_graphs(get_space("nasbench201"), cells, form="HELP")


# --- a space that looks like NAS-Bench-201 --------------------------------------------------------


def test_a_lookalike_is_not_read_as_cells():
    space, genes = Lookalike(), np.zeros((2, 6), dtype=np.int64)
    for function in (structural_features, checked_cells):
        with pytest.raises(SpaceError, match=r"lookalike.*encode"):
            function(genes, space=space)
    with pytest.raises(ConfigError, match=r"lookalike.*RankPredictor"):
        transfer_model("auto", space="lookalike")
    for kind in ("structural", "graph", "graph-brp"):
        mine = parts(encode(space, genes, kind))
        cells = parts(encode(get_space("nasbench201"), genes, kind))
        assert any(not np.array_equal(a, b) for a, b in zip(mine, cells, strict=True))


def test_structure_of_a_lookalike_by_hand():
    space = Lookalike()
    (row,) = structural(space, np.array([[0, 1, 2, 3, 0, 0]]))
    value = dict(zip(structural_names(space), row, strict=True))
    assert (value["raw_conv5"], value["live_conv5"], value["live_conv3"]) == (2, 1, 1)
    assert value["raw_zero"] == 1
    assert value["dead_layers"] == 2  # the zero and what only it reads
    assert value["live_joins"] == 2  # the additions of the two convolutions; the zero joins nothing
    # skip, addition, (relu, conv, addition) twice, two skips, pool
    assert value["live_path_layers"] == 2 + 6 + 3
    assert value["live_path_weights"] == 2
    assert value["log_macs"] == pytest.approx(np.log1p(9 * 64 * (9 + 25 + 25)))
    assert value["log_params"] == pytest.approx(np.log1p(9 * (9 + 25 + 25)))


def test_pruned_graph_of_a_lookalike_by_hand():
    graphs = operator_graphs(Lookalike(), [[0, 1, 2, 3, 0, 0], [0] * 6], form="brp")
    names = [PRUNED_TYPES[i] for i in graphs.nodes[0].argmax(axis=1)]
    assert names == ["global", "input", "conv3", "conv5", "global_avg_pool", "output"]
    a = graphs.adjacency[0]
    read = [np.flatnonzero(row).tolist() for row in a]
    # conv5 reads conv3 and, past its sum, the input; the pool reads all three.
    assert read == [[0, 1, 2, 3, 4, 5], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [4, 5]]
    assert graphs.present[1].tolist() == [True, True, True, False, False, True]
    assert graphs.readout == 0


@few
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 6), min_size=1, max_size=3))
def test_layer_graphs_of_cells_tell_what_the_cells_do(cells):
    """The general forms, on NAS-Bench-201: operators of a live edge are there fifteen times."""
    space = get_space("nasbench201")
    genes = np.array(cells)
    layers = [space.layers(space.architecture(cell)) for cell in cells]
    live = live_edges(genes)
    nodes, _ = pruned_graphs(layers)
    for row, graph in enumerate(layers):
        value = dict(zip(structural_names(Lookalike()), layer_features(graph), strict=True))
        alive = live[row].any()
        conv3, pools = (int((live[row] & (genes[row] == op)).sum()) for op in (3, 4))
        assert value["live_conv3"] == (15 * conv3 + 5 if alive else 0)  # stem, reduction blocks
        assert value["live_avg_pool"] == (15 * pools + 2 if alive else 0)
        assert value["raw_zero"] == 15 * int((genes[row] == 0).sum())
        assert nodes[row, :, PRUNED_TYPES.index("conv3")].sum() == value["live_conv3"]
        assert nodes[row, :, PRUNED_TYPES.index("avg_pool")].sum() == value["live_avg_pool"]


# --- registering and numbering --------------------------------------------------------------------


def test_a_registered_plug_in_is_served(tmp_path, monkeypatch):
    (tmp_path / "plugin_space.py").write_text(
        "from rank_space import Chains\nclass Mine(Chains):\n    name = 'mine'\n"
    )
    info = tmp_path / "plugin_space-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-space\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwnas.spaces]\nmine = plugin_space:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mine" in space_names()
    space = get_space("mine")
    for kind in ENCODINGS:
        assert len(parts(encode(space, some(space, 0), kind))[0]) == 6


def test_too_many_architectures_to_number_are_refused_in_one_line():
    space, count = Fbnet(), 9**22
    genes = some(space, 0)
    for call in (space.grid, lambda: space.grid(np.arange(3)), lambda: space.numbers(genes)):
        with pytest.raises(SpaceError, match=rf"fbnet has {count} .*sample") as caught:
            call()
        assert caught.value.code == "large_space"
    assert encode(space, some(space, 0), "one-hot").shape == (6, 198)


def test_numbers_a_space_does_not_have_are_refused():
    for wrong in (-1, 256):
        with pytest.raises(SpaceError, match=r"chains numbers its architectures 0\.\.255"):
            Chains().grid(np.array([wrong]))


def test_the_list_of_encodings_says_what_each_is():
    for encoding in ENCODINGS.values():
        assert all(str(part) for part in dataclasses.astuple(encoding))
