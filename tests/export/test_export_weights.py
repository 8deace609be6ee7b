from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")


def test_fits_the_graph_and_is_finite() -> None:
    graph = SPACE.layers(SPACE.from_index(100))
    weights = random_weights(graph, seed=0)
    assert {name: array.shape for name, array in weights.items()} == dict(graph.parameter_shapes)
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in weights.values())


def test_he_scale() -> None:
    conv = Layer("c", "conv", ("input",), (64, 8, 8), {"kernel": 3}, {"weight": (64, 64, 3, 3)})
    graph = LayerGraph("test:0", (Layer("input", "input", (), (64, 8, 8)), conv), folded=False)
    (weight,) = random_weights(graph, seed=0).values()
    assert weight.std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    assert abs(weight.mean()) < 0.001


def test_the_seed_and_the_name_decide() -> None:
    graph = SPACE.layers(SPACE.from_index(5))
    one, again, other = (random_weights(graph, seed=seed) for seed in (1, 1, 2))
    key = (
        "cells.0.edges.0.conv.weight"
        if "cells.0.edges.0.conv.weight" in one
        else "head.linear.weight"
    )
    np.testing.assert_array_equal(one[key], again[key])
    assert not np.array_equal(one[key], other[key])
    assert not np.array_equal(
        one["cells.5.conv_b.conv.weight"].ravel()[:64], one["stem.conv.weight"].ravel()[:64]
    )


def test_folded_and_unfolded_share_their_weights() -> None:
    arch = SPACE.sample(1, seed=3)[0]
    wide = random_weights(SPACE.layers(arch), seed=0)
    narrow = random_weights(SPACE.layers(arch, folded=True), seed=0)
    assert narrow.keys() <= wide.keys()
    assert all(np.array_equal(array, wide[name]) for name, array in narrow.items())


def test_normalisations_start_as_the_identity() -> None:
    weights = random_weights(SPACE.layers(SPACE.from_index(0)), seed=0)
    assert (weights["stem.bn.weight"] == 1).all()
    assert (weights["stem.bn.running_var"] == 1).all()
    assert (weights["stem.bn.bias"] == 0).all()
    assert (weights["stem.bn.running_mean"] == 0).all()
    assert (weights["head.linear.bias"] == 0).all()


@pytest.mark.slow
def test_a_parameter_may_be_larger_than_the_pool() -> None:
    big = Layer("fc", "linear", ("input",), (1024,), {}, {"weight": (1024, 512)})
    graph = LayerGraph("test:0", (Layer("input", "input", (), (512,)), big), folded=False)
    (weight,) = random_weights(graph, seed=0).values()
    assert weight.shape == (1024, 512)
    assert np.linalg.matrix_rank(weight) == 512


def test_arrays_are_read_only() -> None:
    weights = random_weights(SPACE.layers(SPACE.from_index(0)), seed=0)
    assert not any(array.flags.writeable for array in weights.values())
