"""Random weights for networks whose latency matters and whose answers do not."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.layers import Layer, LayerGraph, Shape
from hwnas_sdk.core.rng import child_rng

Weights = dict[str, NDArray[np.float32]]

# A prime, so that rows of a matrix larger than the pool do not repeat in step with it.
_POOL_SIZE: Final = 2**17 - 1
_ONES: Final = ("weight", "running_var")


def random_weights(graph: LayerGraph, *, seed: int) -> Weights:
    """He-initialised weights of every parameter of `graph`, as read-only float32 arrays.

    A parameter depends on its name, its shape and `seed` only, so the folded and the unfolded
    graph of one architecture share their weights. Convolutions and linear layers are normal with
    variance 2 / fan-in, embeddings standard normal, biases zero, normalisations the identity.

    Differs from the paper: values are slices of one fixed normal pool at a hashed offset, which
    costs no drawing and no copying; overlapping slices do not matter for timing.

    Shapes: those of `LayerGraph.parameter_shapes`. Source: He et al., ICCV 2015.
    """
    return {
        f"{layer.name}.{key}": _parameter(layer, key, shape, seed)
        for layer in graph
        for key, shape in layer.params.items()
    }


def _parameter(layer: Layer, key: str, shape: Shape, seed: int) -> NDArray[np.float32]:
    if layer.op in {"batch_norm", "layer_norm"}:
        return _constant(1.0 if key in _ONES else 0.0, shape)
    if key != "weight":
        return _constant(0.0, shape)
    size = math.prod(shape)
    fan_in = 2 if layer.op == "embedding" else math.prod(shape[1:])
    pool = _scaled_pool(fan_in)
    if size > _POOL_SIZE:
        grown = np.resize(pool, shape)
        grown.flags.writeable = False
        return grown
    offset = zlib.crc32(f"{seed}/{layer.name}.{key}".encode()) % (_POOL_SIZE - size + 1)
    return pool[offset : offset + size].reshape(shape)


@lru_cache(maxsize=1)
def _pool() -> NDArray[np.float32]:
    rng = child_rng(0, "export", "weights")
    return rng.standard_normal(_POOL_SIZE, dtype=np.float32)


@lru_cache(maxsize=64)  # 64 x 0.5 MiB at most
def _scaled_pool(fan_in: int) -> NDArray[np.float32]:
    pool = _pool() * np.float32(math.sqrt(2.0 / max(1, fan_in)))
    pool.flags.writeable = False
    return pool


@lru_cache(maxsize=256)
def _constant(value: float, shape: Shape) -> NDArray[np.float32]:
    array = np.full(shape, value, dtype=np.float32)
    array.flags.writeable = False
    return array
