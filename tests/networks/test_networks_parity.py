"""Torch against ONNX Runtime with the same weights: every operator, and whole cells."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hwnas_sdk.core.layers import OPS, Layer, LayerGraph
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.export.onnx import check_model, onnx_bytes, takes_indices
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.networks.build import build_module, load_weights
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces._nasbench201_family import cell_atoms

TOLERANCE = 1e-4  # of the output's scale
SPACE = get_space("nasbench201")


def run_onnx(data: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(["output"], {"input": x})
    return output


def run_torch(graph: LayerGraph, weights: dict, x: np.ndarray) -> np.ndarray:
    module = build_module(graph).eval()
    load_weights(module, weights)
    with torch.inference_mode():
        return module(torch.from_numpy(x)).numpy()


def lively_weights(graph: LayerGraph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Nothing left at 0 or 1, so that no parameter can be forgotten unnoticed."""
    weights = dict(random_weights(graph, seed=3))
    for name, array in weights.items():
        noise = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        if name.endswith(("bias", "running_mean")):
            weights[name] = noise - 1
        elif (array == 1).all():
            weights[name] = noise
    return weights


def random_input(graph: LayerGraph, rng: np.random.Generator, batch: int) -> np.ndarray:
    shape = (batch, *graph.input.shape)
    if takes_indices(graph):
        return rng.integers(0, 7, shape)
    return rng.normal(0, 2, shape).astype(np.float32)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    scale = max(1e-6, float(np.abs(expected).max()))
    assert float(np.abs(actual - expected).max()) <= TOLERANCE * scale


# --- one graph or more per operator -----------------------------------------------------------


def chain(shape: tuple[int, ...], *layers: Layer) -> LayerGraph:
    return LayerGraph("test:0", (Layer("input", "input", (), shape), *layers), folded=False)


def unary(op: str, shape: tuple[int, ...] = (4, 6, 5)) -> LayerGraph:
    return chain(shape, Layer("block.op", op, ("input",), shape))


def layer(op: str, shape_in, shape_out, attrs=None, params=None) -> LayerGraph:
    return chain(shape_in, Layer("a.op", op, ("input",), shape_out, attrs or {}, params or {}))


def conv(shape_in, shape_out, weight, **attrs) -> LayerGraph:
    params = {"weight": weight}
    if attrs.pop("bias", False):
        params["bias"] = (weight[0],)
    return layer("conv", shape_in, shape_out, attrs, params)


def norm(shape: tuple[int, ...]) -> LayerGraph:
    names = ("weight", "bias", "running_mean", "running_var")
    return layer("batch_norm", shape, shape, {"eps": 1e-3}, dict.fromkeys(names, shape[:1]))


def binary(op: str, shape, *, left: str = "input", right: str = "a.relu", out=None) -> LayerGraph:
    return chain(
        shape,
        Layer("a.relu", "relu", ("input",), shape),
        Layer("b.op", op, (left, right), out or shape),
    )


def gate(order: tuple[str, str]) -> LayerGraph:
    """Squeeze and excitation: (C,) times (C, H, W)."""
    return chain(
        (3, 4, 5),
        Layer("pool", "global_avg_pool", ("input",), (3,)),
        Layer("scale", "mul", order, (3, 4, 5)),
    )


POOL = {"kernel": 3, "stride": 2, "padding": 1}
CASES: dict[str, list[LayerGraph]] = {
    "input": [chain((2, 3, 4))],
    "conv": [
        conv((3, 8, 8), (5, 8, 8), (5, 3, 3, 3), kernel=3, stride=1, padding=1),
        conv((4, 9, 7), (4, 5, 4), (4, 1, 3, 3), kernel=3, stride=2, padding=1, groups=4),
        conv((4, 9, 9), (6, 5, 5), (6, 2, 3, 3), kernel=3, dilation=2, groups=2, bias=True),
        conv((2, 6, 8), (3, 6, 4), (3, 2, 1, 5), kernel=(1, 5), stride=(1, 2), padding=(0, 2)),
    ],
    "batch_norm": [norm((4, 5, 5)), norm((4,)), norm((4, 6))],
    "avg_pool": [
        layer("avg_pool", (3, 8, 8), (3, 4, 4), {**POOL, "count_include_pad": 0}),
        layer("avg_pool", (3, 8, 8), (3, 4, 4), {**POOL, "count_include_pad": 1}),
        layer("avg_pool", (3, 8, 6), (3, 4, 3), {"kernel": 2}),
    ],
    "max_pool": [
        layer("max_pool", (3, 8, 8), (3, 4, 4), POOL),
        layer("max_pool", (3, 7, 7), (3, 3, 3), {"kernel": 3, "stride": 2}),
    ],
    "global_avg_pool": [layer("global_avg_pool", (5, 4, 3), (5,))],
    "add": [
        binary("add", (3, 4, 4)),
        chain((3,), Layer("sum", "add", ("input", "input", "input"), (3,))),
    ],
    "mul": [binary("mul", (3, 4, 4)), gate(("input", "pool")), gate(("pool", "input"))],
    "concat": [binary("concat", (3, 4, 4), out=(6, 4, 4))],
    "linear": [
        layer("linear", (6,), (4,), {}, {"weight": (4, 6), "bias": (4,)}),
        layer("linear", (6,), (4,), {}, {"weight": (4, 6)}),
        layer("linear", (5, 6), (5, 4), {}, {"weight": (4, 6), "bias": (4,)}),
        layer("linear", (5, 6), (5, 4), {}, {"weight": (4, 6)}),
    ],
    "matmul": [binary("matmul", (5, 5)), binary("matmul", (2, 4, 4))],
    "softmax": [unary("softmax", (7,)), unary("softmax", (3, 7))],
    "layer_norm": [
        layer("layer_norm", (5, 8), (5, 8), {"eps": 1e-3}, {"weight": (8,), "bias": (8,)}),
        layer("layer_norm", (8,), (8,), {"eps": 1e-5}, {"weight": (8,), "bias": (8,)}),
        layer("layer_norm", (2, 3, 4), (2, 3, 4), {}, {"weight": (3, 4), "bias": (3, 4)}),
    ],
    "embedding": [layer("embedding", (6,), (6, 5), {}, {"weight": (7, 5)})],
    "flatten": [layer("flatten", (3, 4, 5), (60,))],
    **{
        op: [unary(op)]
        for op in ("relu", "relu6", "hswish", "hsigmoid", "sigmoid", "tanh", "gelu", "identity")
    },
    "zero": [unary("zero")],
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("op", sorted(OPS))
def test_operator_computes_the_same_in_torch_and_onnx(op: str, batch: int) -> None:
    assert op in CASES, f"a new operator needs a case here: {op}"
    rng = np.random.default_rng(len(op))
    for graph in CASES[op]:
        weights = lively_weights(graph, rng)
        data = onnx_bytes(graph, weights, batch=batch)
        check_model(data)
        onnx.checker.check_model(data, full_check=True)  # shape inference agrees with the layers
        x = random_input(graph, rng, batch)
        expected = run_torch(graph, weights, x)
        assert expected.shape == (batch, *graph.output.shape)
        assert_close(run_onnx(data, x), expected)


def test_zero_is_executed_not_folded() -> None:
    model = onnx.load_from_string(onnx_bytes(unary("zero"), {}))
    assert [node.op_type for node in model.graph.node] == ["Mul"]


# --- whole networks ---------------------------------------------------------------------------


def check_cell(architecture: Architecture) -> None:
    """Both forms agree with torch, and with each other where the output sees the input."""
    rng = np.random.default_rng(architecture.genotype)
    unfolded = SPACE.layers(architecture)
    weights = lively_weights(unfolded, rng)
    x = random_input(unfolded, rng, batch=2)
    outputs = {}
    graphs = [unfolded]
    if not SPACE.is_dead(architecture):
        folded = SPACE.layers(architecture, folded=True)
        graphs.append(folded)
        # Folding takes a convolution of nothing for nothing, which holds where its batch norm
        # maps 0 to 0. Everything that survives keeps its lively batch norm.
        for name in weights:
            dropped = name.rpartition(".")[0] not in folded.by_name
            if dropped and name.endswith(("bias", "running_mean")):
                weights[name] = np.zeros_like(weights[name])
    for graph in graphs:
        data = onnx_bytes(graph, weights, batch=2)
        check_model(data)
        outputs[graph.folded] = run_onnx(data, x)
        assert_close(outputs[graph.folded], run_torch(graph, weights, x))
    if True in outputs:
        assert_close(outputs[True], outputs[False])


@pytest.mark.slow
def test_twelve_cells() -> None:
    for architecture in SPACE.sample(12, seed=11, live_only=False):
        check_cell(architecture)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_cells() -> None:
    for architecture in SPACE.sample(200, seed=12, live_only=False):
        check_cell(architecture)


# --- functional families ----------------------------------------------------------------------


def convolution_map(one: tuple[int, ...], other: tuple[int, ...]) -> dict[int, int]:
    """Convolution edges of `one` -> those of `other`, such that the cells compute the same."""
    output_a, convs_a = cell_atoms(one)
    output_b, convs_b = cell_atoms(other)
    for order in itertools.permutations(convs_b):
        to = dict(zip(convs_a, order, strict=True)) | {-1: -1}

        def moved(atoms, to=to):
            return {(k, to[base]): n for (k, base), n in atoms.items()}

        if moved(output_a) == dict(output_b) and all(
            one[edge] == other[to[edge]] and moved(atoms) == dict(convs_b[to[edge]])
            for edge, atoms in convs_a.items()
        ):
            return to
    raise AssertionError("not one family")


def renamed(weights: dict[str, np.ndarray], to: dict[int, int]) -> dict[str, np.ndarray]:
    out = {}
    for name, array in weights.items():
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "edges":
            parts[3] = str(to[int(parts[3])])
        out[".".join(parts)] = array
    return out


def test_cells_of_one_family_fold_to_the_same_function() -> None:
    families: dict[Hashable, list[Architecture]] = defaultdict(list)
    for architecture in SPACE.sample(1500, seed=5):
        families[SPACE.family(architecture)].append(architecture)
    pairs = [members[:2] for members in families.values() if len(members) > 1]
    pairs = [p for p in pairs if len(cell_atoms(p[0].genotype)[1]) > 1][:6]
    assert len(pairs) == 6
    for one, other in pairs:
        rng = np.random.default_rng(one.genotype)
        graph, twin = (SPACE.layers(a, folded=True) for a in (one, other))
        weights = lively_weights(graph, rng)
        x = random_input(graph, rng, batch=1)
        moved = renamed(weights, convolution_map(one.genotype, other.genotype))
        assert_close(run_onnx(onnx_bytes(twin, moved), x), run_onnx(onnx_bytes(graph, weights), x))
        assert (graph.macs, graph.n_params) == (twin.macs, twin.n_params)
