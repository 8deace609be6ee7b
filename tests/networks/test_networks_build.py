from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from hwnas_sdk.core.errors import ExportError, ModelError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.networks.build import build_module, load_weights
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def graph_of(*layers: Layer) -> LayerGraph:
    return LayerGraph("test:0", (Layer("input", "input", (), (2, 4, 4)), *layers), folded=False)


def conv(name: str, source: str) -> Layer:
    return Layer(name, "conv", (source,), (2, 4, 4), {"kernel": 1}, {"weight": (2, 2, 1, 1)})


@pytest.mark.parametrize("folded", [False, True])
def test_state_dict_has_the_graphs_parameters(*, folded: bool) -> None:
    graph = SPACE.layers(SPACE.decode(CELL), folded=folded)
    state = build_module(graph).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == dict(graph.parameter_shapes)


def test_trains() -> None:
    module = build_module(SPACE.layers(SPACE.decode(CELL)))
    assert module.training
    before = module.state_dict()["stem.bn.running_mean"].clone()
    module(torch.ones(2, 3, 32, 32)).sum().backward()
    assert not torch.equal(module.state_dict()["stem.bn.running_mean"], before)
    assert all(p.grad is not None for p in module.get_submodule("stem").parameters())


def test_copies_do_not_share_weights() -> None:
    module = build_module(graph_of(conv("a.conv", "input"))).eval()
    twin = copy.deepcopy(module)
    stored = pickle.loads(pickle.dumps(module))
    x = torch.ones(1, 2, 4, 4)
    expected = module(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), expected)
    assert torch.equal(stored(x), expected)
    assert not module(x).any()


def test_a_layer_may_stand_below_another_layers_name() -> None:
    module = build_module(graph_of(conv("a", "input"), conv("a.b", "a")))
    assert list(module.state_dict()) == ["a.weight", "a.b.weight"]


def test_load_weights_copies() -> None:
    graph = graph_of(conv("a", "input"))
    module = build_module(graph)
    weights = {"a.weight": np.ones((2, 2, 1, 1), np.float32), "other": np.ones(3, np.float32)}
    load_weights(module, weights)
    weights["a.weight"][:] = 7
    assert module.state_dict()["a.weight"].unique().tolist() == [1.0]
    load_weights(module, random_weights(graph, seed=0))  # read-only arrays


@pytest.mark.parametrize("weights", [{}, {"a.weight": np.ones((2, 2), np.float32)}])
def test_load_weights_refuses_what_does_not_fit(weights: dict) -> None:
    with pytest.raises(ModelError, match=r"'a\.weight'"):
        load_weights(build_module(graph_of(conv("a", "input"))), weights)


@pytest.mark.parametrize(
    "bad",
    [
        Layer("x", "add", ("input",), (2, 4, 4)),
        Layer("x", "mul", ("input",), (2, 4, 4)),
        Layer("x", "input", (), (2, 4, 4)),
        conv("train", "input"),
    ],
)
def test_impossible_layers_are_named(bad: Layer) -> None:
    with pytest.raises(ExportError, match=f"layer '{bad.name}'"):
        build_module(graph_of(bad))


def test_matmul_and_mul_refuse_other_shapes() -> None:
    pool = Layer("p", "global_avg_pool", ("input",), (2,))
    for op in ("mul", "matmul"):
        bad = Layer("x", op, ("q", "p"), (2,))
        with pytest.raises(ExportError, match="layer 'x'"):
            build_module(graph_of(pool, Layer("q", "flatten", ("input",), (32,)), bad))


def test_forward_drops_values_it_no_longer_needs() -> None:
    graph = graph_of(conv("a", "input"), conv("b", "a"), Layer("c", "add", ("a", "b"), (2, 4, 4)))
    module = build_module(graph)
    assert [call.last_read for call in module._calls] == [(0,), (), (1, 2)]
    torch.save(module.state_dict(), io.BytesIO())
