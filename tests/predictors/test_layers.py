"""The layer-wise look-up table and the pieces it is made of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwnas_sdk.core.errors import ExportError, ModelError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.export.layer_units import layer_units
from hwnas_sdk.export.onnx import check_model, onnx_bytes
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.predictors.layers import LayerTable
from hwnas_sdk.spaces.nasbench201 import NasBench201

SPACE = NasBench201()
ARCHS = SPACE.sample(6, seed=2)
GRAPHS = [SPACE.layers(arch, folded=False) for arch in ARCHS]


@pytest.mark.parametrize("graph", GRAPHS)
def test_pieces_hold_all_the_work_of_the_network(graph: LayerGraph) -> None:
    units = layer_units(graph)
    assert sum(u.n * u.graph.macs for u in units) == graph.macs
    assert sum(u.n * u.graph.n_params for u in units) == graph.n_params
    computed = sum(layer.op not in ("input", "identity", "flatten") for layer in graph)
    assert sum(u.n * (len(u.graph) - 1) for u in units) == computed
    assert len({u.id for u in units}) == len(units) < computed


def test_equal_layers_of_different_networks_are_one() -> None:
    first, second = ({u.id for u in layer_units(graph)} for graph in GRAPHS[:2])
    assert len(first & second) >= 8  # stem, reductions and head at least


def test_every_piece_is_a_network_of_its_own() -> None:
    unique = {unit.id: unit for graph in GRAPHS for unit in layer_units(graph)}
    for unit in unique.values():
        data = onnx_bytes(unit.graph, random_weights(unit.graph, seed=0))
        check_model(data)
        shape = onnx.load_model_from_string(data).graph.output[0].type.tensor_type.shape
        assert tuple(d.dim_value for d in shape.dim)[1:] == unit.graph.output.shape


def test_a_layer_somebody_else_reads_is_not_fused() -> None:
    shape = (2, 4, 4)
    conv = Layer("c", "conv", ("x",), shape, {"kernel": 1}, {"weight": (2, 2, 1, 1)})
    layers = (
        Layer("x", "input", (), shape),
        conv,
        Layer("r", "relu", ("c",), shape),
        Layer("a", "add", ("c", "r"), shape),
    )
    units = layer_units(LayerGraph("t", layers, folded=False))
    assert [u.text.split()[0] for u in units] == ["conv", "relu", "add"]


def test_inputs_of_different_shapes_are_refused() -> None:
    layers = (
        Layer("x", "input", (), (2, 4, 4)),
        Layer("p", "global_avg_pool", ("x",), (2,)),
        Layer("m", "mul", ("x", "p"), (2, 4, 4)),
    )
    with pytest.raises(ExportError, match="different shapes"):
        layer_units(LayerGraph("t", layers, folded=False))


def test_the_constant_is_what_layers_do_not_explain() -> None:
    latency_ms = {u.id: 0.1 + 1e-8 * u.graph.macs for g in GRAPHS for u in layer_units(g)}
    sums = [sum(u.n * latency_ms[u.id] for u in layer_units(g)) for g in GRAPHS]
    whole = [total - 0.7 for total in sums]
    whole[0] += 5.0  # one bad measurement moves a mean, not a median
    table = LayerTable.fit(latency_ms, GRAPHS, whole)
    assert table.constant_ms == pytest.approx(-0.7)
    assert table.n_networks == len(GRAPHS)
    assert np.allclose([table.predict(g) for g in GRAPHS[1:]], whole[1:])


def test_a_layer_never_measured_is_named() -> None:
    units = layer_units(GRAPHS[0])
    table = LayerTable.fit({u.id: 1.0 for u in units[1:]}, [GRAPHS[0]], [9.0])
    assert (table.n_networks, table.constant_ms) == (0, 0.0)
    assert table.missing(GRAPHS[0]) == [units[0].text]
    with pytest.raises(ModelError, match="not measured") as caught:
        table.predict(GRAPHS[0])
    assert units[0].text in str(caught.value)
