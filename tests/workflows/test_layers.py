"""Layers measured alone: which there are, what their table predicts, how they are stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError, ExportError, ModelError
from hwnas_sdk.core.layers import Layer
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.core.unique_layers import UniqueLayer, calling, unique_layers
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_graph
from hwnas_sdk.predictors.layers import LayerTable
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.layers import measure_layers, stored_items

SPACE = get_space("nasbench201")
CELL = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
OTHER = "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def graph_of(text):
    return SPACE.layers(SPACE.decode(text))


def test_every_layer_is_counted_once_under_its_key():
    graph = graph_of(CELL)
    layers = unique_layers(graph)
    assert sum(layers.values()) == len(graph) - 1
    assert len({unique.key for unique in layers}) == len(layers) < 60
    assert sum(n * unique.layer.macs for unique, n in layers.items()) == graph.macs


def test_layers_that_differ_in_shape_or_attributes_differ():
    conv = next(u for u in unique_layers(graph_of(CELL)) if u.layer.op == "conv")
    graph = conv.graph()
    assert [layer.op for layer in graph] == ["input", "conv"]
    assert graph.macs == conv.layer.macs
    strided = replace(conv.layer, attrs={**conv.layer.attrs, "stride": 7})
    again = unique_layers(replace(graph, layers=(graph.input, replace(strided, inputs=("x",)))))
    assert {u.key for u in again}.isdisjoint({conv.key})


def test_a_key_can_be_read_back():
    for arch in SPACE.sample(20, seed=0):
        for unique in [*unique_layers(SPACE.layers(arch)), calling(SPACE.layers(arch))]:
            again = UniqueLayer.of_key(unique.key)
            assert again == unique
            assert again.input_shapes == unique.input_shapes
            assert again.graph().layers == replace(unique.graph(), arch_id="").layers
            (only,) = unique_layers(again.graph())
            assert only.key == unique.key


@pytest.mark.parametrize(
    "text", ["", "conv", "conv 3x3", "conv 3x-> 3", "fly 3->3", "conv 3->3 a=b"]
)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ExportError) as caught:
        UniqueLayer.of_key(text)
    assert "\n" not in str(caught.value)


def test_every_layer_of_a_network_exports(tmp_path):
    cache = ArtifactCache(tmp_path)
    for unique in unique_layers(graph_of(CELL)):
        artifact = export_graph(unique.graph(), cache=cache)
        assert artifact.arch_id == unique.arch_id
    assert export_graph(calling(graph_of(CELL)).graph(), cache=cache).size_bytes > 0
    assert export_graph(unique.graph(), cache=cache).sha256 == artifact.sha256


def test_a_layer_that_reads_two_shapes_is_refused():
    layer = Layer("m", "mul", ("a", "b"), (4, 2, 2))
    with pytest.raises(ExportError, match="several shapes"):
        UniqueLayer("mul", layer, ((4, 2, 2), (4,))).graph()


def test_the_table_adds_up_and_counts_calling_once():
    graph = graph_of(CELL)
    layers = unique_layers(graph)
    table = LayerTable({u.key: 3.0 for u in layers}, calling_ms=1.0)
    assert table.predict(graph) == pytest.approx(1.0 + 2.0 * (len(graph) - 1))
    faster = LayerTable({u.key: 0.5 for u in layers}, calling_ms=1.0)
    assert faster.predict(graph) == 1.0  # noise never makes a layer cost less than nothing


def test_a_missing_layer_is_named():
    table = LayerTable({u.key: 3.0 for u in unique_layers(graph_of(CELL))}, calling_ms=1.0)
    assert table.missing([graph_of(CELL)]) == ()
    missing = table.missing([graph_of(OTHER)])
    assert missing
    assert all("1x1" in key or "conv" in key for key in missing)
    with pytest.raises(ModelError, match="no layer"):
        table.predict(graph_of(OTHER))


def test_whole_networks_correct_the_sum():
    graphs = [graph_of(CELL), graph_of(OTHER)]
    keys = {u.key: u.layer.macs / 1e6 + 0.1 for g in graphs for u in unique_layers(g)}
    table = LayerTable(keys, calling_ms=0.1)
    truth = np.array([2.0 + 0.5 * table.predict(g) for g in graphs])
    fitted = table.calibrated(graphs, truth)
    assert [fitted.predict(g) for g in graphs] == pytest.approx(truth.tolist())
    single = table.calibrated(graphs[:1], truth[:1])
    assert single.predict(graphs[0]) == pytest.approx(truth[0])
    with pytest.raises(ModelError):
        table.calibrated([], np.empty(0))
    with pytest.raises(ModelError, match="positive"):
        table.calibrated(graphs, np.array([1.0, np.nan]))


def test_layers_are_measured_stored_and_make_a_table():
    settings = settings_preset("quick")
    archs = [SPACE.decode(CELL), SPACE.decode(OTHER)]
    with Lab.open() as lab:
        board = lab.device("fake://?mode=ok")
        result = measure_layers(lab, archs, on=board, settings=settings)
        assert not result.skipped
        n_unique = len({u.key for a in archs for u in unique_layers(SPACE.layers(a))})
        assert len(result.layers) == n_unique + 1
        stored = lab.store.measurements(run_id=result.run_id)
        assert len(stored) == n_unique + 1 + len(archs)
        for network in result.networks:
            assert network.sum_ms == pytest.approx(
                result.table.predict(SPACE.layers(network.architecture))
            )
        known = stored_items(lab.store, board.spec.id, settings)
        again = measure_layers(lab, archs, on=board, settings=settings, known=known)
        assert (again.run_id, again.n_measured) == ("", 0)
        assert [n.sum_ms for n in again.networks] == [n.sum_ms for n in result.networks]
        assert len(lab.store.measurements(device_id=board.spec.id)) == len(stored)
        assert stored_items(lab.store, "other", settings) == {}
        assert stored_items(lab.store, board.spec.id, settings_preset("standard")) == {}


def test_a_table_cannot_run_a_layer(monkeypatch):
    with Lab.open() as lab:
        board = lab.device("fake://?mode=ok")
        monkeypatch.setattr(board, "needs_artifacts", False)
        with pytest.raises(ConfigError, match="whole networks"):
            measure_layers(lab, [SPACE.decode(CELL)], on=board, settings=settings_preset("quick"))
