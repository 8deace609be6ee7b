from __future__ import annotations

import pytest

from hwnas_sdk.core.layers import OPS, Layer, LayerGraph
from hwnas_sdk.simulators.workload import (
    ArrayWork,
    ElementWork,
    NoWork,
    without_constants,
    work_of,
)

IMAGE = Layer("x", "input", (), (16, 32, 32))
ZERO = Layer("z", "zero", ("x",), (16, 32, 32))


def work(layer: Layer, *inputs: Layer, pooling: str = "modelled", fused: tuple[str, ...] = ()):
    return work_of(layer, inputs or (IMAGE,), pooling=pooling, fused=fused)  # type: ignore[arg-type]


def conv(**attrs: int) -> Layer:
    groups = attrs.get("groups", 1)
    shape = (32, 32 // attrs.get("stride", 1), 32 // attrs.get("stride", 1))
    return Layer("c", "conv", ("x",), shape, attrs, {"weight": (32, 16 // groups, 3, 3)})


def test_a_convolution_keeps_its_multiply_accumulates() -> None:
    for attrs in ({}, {"stride": 2, "padding": 1}, {"groups": 4}, {"groups": 16}):
        layer = conv(**attrs)
        found = work(layer)
        assert isinstance(found, ArrayWork)
        assert found.macs == layer.macs
    assert work(conv(groups=16)).G == 16


def test_linear_and_matmul_are_products_of_matrices() -> None:
    linear = Layer("l", "linear", ("x",), (10,), {}, {"weight": (10, 64), "bias": (10,)})
    assert work(linear) == ArrayWork(K=10, C=64, G=1, OX=1, OY=1, FX=1, FY=1)
    tokens = Layer("t", "input", (), (4, 50, 8))
    product = Layer("m", "matmul", ("t", "t"), (4, 50, 50))
    assert work(product, tokens, tokens) == ArrayWork(K=50, C=8, G=4, OX=1, OY=50, FX=1, FY=1)


def test_pooling_by_both_conventions() -> None:
    pool = Layer("p", "avg_pool", ("x",), (16, 32, 32), {"kernel": 3, "stride": 1, "padding": 1})
    assert work(pool) == ElementWork("avg_pool", 9 * 16384, 16384, 16384)
    dense = work(pool, pooling="dense_conv")
    assert isinstance(dense, ArrayWork)
    assert dense.macs == 16384 * 16 * 9
    whole = Layer("g", "global_avg_pool", ("x",), (16,))
    assert work(whole, pooling="dense_conv") == ElementWork("global_avg_pool", 16384, 16384, 16)


def test_an_addition_reads_no_removed_constants() -> None:
    total = Layer("a", "add", ("x", "x", "z"), (16, 32, 32))
    assert work(total, IMAGE, IMAGE, ZERO) == ElementWork("add", 16384, 32768, 16384)
    assert work(total, IMAGE, IMAGE, IMAGE) == ElementWork("add", 2 * 16384, 3 * 16384, 16384)
    assert isinstance(work(total, IMAGE, ZERO, ZERO), NoWork)


def test_without_constants_every_addition_costs_what_it_did() -> None:
    size = IMAGE.shape
    sums = [("xxz", "add"), ("xzz", "identity"), ("zz", "identity"), ("xxx", "add")]
    layers = tuple(Layer(f"a{i}", "add", tuple(names), size) for i, (names, _) in enumerate(sums))
    graph = LayerGraph("g", (IMAGE, ZERO, *layers), folded=False)
    left = without_constants(graph)
    assert [layer.op for layer in left.layers[2:]] == [op for _, op in sums]
    for before, after in zip(graph.layers, left.layers, strict=True):
        old, new = (
            work_of(layer, [g.by_name[n] for n in layer.inputs], pooling="modelled", fused=())
            for g, layer in ((graph, before), (left, after))
        )
        assert new == old or (isinstance(new, NoWork) and isinstance(old, NoWork))
        assert all(left.by_name[name].op != "zero" for name in after.inputs if after.op == "add")


def test_what_is_fused_is_free_and_what_is_not_costs() -> None:
    relu = Layer("r", "relu", ("x",), (16, 32, 32))
    assert work(relu) == ElementWork("relu", 16384, 16384, 16384)
    assert isinstance(work(relu, fused=("relu",)), NoWork)
    for op in ("identity", "zero", "flatten"):
        free = work(Layer("f", op, ("x",), (16, 32, 32)))
        assert isinstance(free, NoWork)
        assert free.reason


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_operator_is_costed_somehow(op: str) -> None:
    attrs = {"kernel": 3} if "pool" in op else {}
    params = {"weight": (16, 16, 3, 3)} if op == "conv" else {"weight": (16, 32)}
    assert work(Layer("l", op, ("x", "x"), (16, 32, 32), attrs, params), IMAGE, IMAGE) is not None
