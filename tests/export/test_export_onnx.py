from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import OPS, Layer, LayerGraph
from hwnas_sdk.export import _protobuf
from hwnas_sdk.export._onnx_ops import EMITTERS
from hwnas_sdk.export.onnx import check_model, onnx_bytes, takes_indices
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def graph_of(*layers: Layer, shape=(2, 4, 4)) -> LayerGraph:
    return LayerGraph("test:0", (Layer("input", "input", (), shape), *layers), folded=False)


def cell(*, folded: bool = False) -> LayerGraph:
    return SPACE.layers(SPACE.decode(CELL), folded=folded)


def export(graph: LayerGraph, **options) -> onnx.ModelProto:
    return onnx.load_from_string(onnx_bytes(graph, random_weights(graph, seed=0), **options))


def test_every_operator_has_an_emitter() -> None:
    assert EMITTERS.keys() == OPS - {"input"}


def test_opset_and_ir_are_old_enough_for_old_boards() -> None:
    model = export(cell())
    assert model.ir_version == 7
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]


@pytest.mark.parametrize("folded", [False, True])
def test_bytes_are_those_protobuf_would_write(*, folded: bool) -> None:
    data = onnx_bytes(cell(folded=folded), random_weights(cell(), seed=0), batch=2)
    assert onnx.load_from_string(data).SerializeToString(deterministic=True) == data
    onnx.checker.check_model(data, full_check=True)


def test_bytes_are_the_same_in_another_process() -> None:
    code = (
        "from hashlib import sha256; from hwnas_sdk.spaces import get_space;"
        "from hwnas_sdk.export.onnx import onnx_bytes;"
        "from hwnas_sdk.export.weights import random_weights;"
        f"s = get_space('nasbench201'); g = s.layers(s.decode({CELL!r}));"
        "print(sha256(onnx_bytes(g, random_weights(g, seed=0))).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_batch_norm_stays_and_weights_keep_their_names_and_values() -> None:
    graph = cell()
    weights = random_weights(graph, seed=4)
    model = onnx.load_from_string(onnx_bytes(graph, weights))
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("BatchNormalization") == sum(layer.op == "batch_norm" for layer in graph)
    assert ops.count("Mul") == sum(layer.op == "zero" for layer in graph)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, array in weights.items():
        np.testing.assert_array_equal(stored[name], array)


def test_ends_are_named_and_static() -> None:
    graph = export(cell(), batch=3).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    assert shapes == {"input": [3, 3, 32, 32], "output": [3, 10]}


def test_metadata_says_what_it_is() -> None:
    graph = cell(folded=True)
    model = export(graph, weights_note="random 0")
    assert {p.key: p.value for p in model.metadata_props} == {
        "arch_id": graph.arch_id,
        "folded": "true",
        "graph_id": graph.id,
        "weights": "random 0",
    }
    assert model.producer_name == "hwnas-sdk"


def test_weights_of_other_types_are_converted() -> None:
    head = Layer("fc", "linear", ("input",), (2,), {}, {"weight": (2, 3)})
    weights = {"fc.weight": np.arange(6.0).reshape(3, 2).T}  # float64, not contiguous
    model = onnx.load_from_string(onnx_bytes(graph_of(head, shape=(3,)), weights))
    stored = numpy_helper.to_array(model.graph.initializer[0])
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, weights["fc.weight"])


@pytest.mark.parametrize("weights", [{}, {"fc.weight": np.zeros((3, 2), np.float32)}])
def test_weights_that_do_not_fit_are_named(weights: dict) -> None:
    head = Layer("fc", "linear", ("input",), (2,), {}, {"weight": (2, 3)})
    with pytest.raises(ExportError, match=r"'fc\.weight'"):
        onnx_bytes(graph_of(head, shape=(3,)), weights)


@pytest.mark.parametrize(
    "layers",
    [
        [Layer("x", "add", ("input",), (2, 4, 4))],
        [Layer("x", "mul", ("input",), (2, 4, 4))],
        [Layer("x", "matmul", ("input",), (2, 4, 4))],
        [Layer("x", "input", (), (2, 4, 4))],
        [Layer("p", "flatten", ("input",), (32,)), Layer("x", "mul", ("p", "input"), (32,))],
    ],
)
def test_layers_that_cannot_be_written_are_named(layers: list[Layer]) -> None:
    with pytest.raises(ExportError, match="layer 'x'"):
        onnx_bytes(graph_of(*layers), {})


def test_kept_names() -> None:
    bad = [Layer("output", "relu", ("input",), (2,)), Layer("x", "relu", ("output",), (2,))]
    with pytest.raises(ExportError, match="layer 'output'"):
        onnx_bytes(graph_of(*bad, shape=(2,)), {})
    last = Layer("output", "relu", ("input",), (2,))
    check_model(onnx_bytes(graph_of(last, shape=(2,)), {}))


def test_indices_or_numbers() -> None:
    words = Layer("words", "embedding", ("input",), (3, 5), {}, {"weight": (7, 5)})
    assert takes_indices(graph_of(words, shape=(3,)))
    with pytest.raises(ExportError, match="embedding and also relu"):
        takes_indices(graph_of(words, Layer("r", "relu", ("input",), (3,)), shape=(3,)))


def test_batch_must_be_positive() -> None:
    with pytest.raises(ExportError, match="batch"):
        onnx_bytes(graph_of(), {}, batch=0)


def test_check_model_names_the_problem() -> None:
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        check_model(b"\x08\x07")
    clash = [Layer("a", "relu", ("input",), (2,)), Layer("b/1", "relu", ("a",), (2,))]
    total = Layer("b", "add", ("a", "b/1", "a"), (2,))  # writes b/1 as its first partial sum
    end = Layer("c", "relu", ("b",), (2,))
    with pytest.raises(ExportError, match="b/1"):
        check_model(onnx_bytes(graph_of(*clash, total, end, shape=(2,)), {}))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**40])
def test_varint(value: int) -> None:
    expected = onnx.TensorProto(dims=[value]).SerializeToString()[1:]
    assert _protobuf.varint(value) == expected
