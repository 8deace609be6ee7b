"""A network small enough to compile and tune in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.user_model import import_onnx


def tiny_network(folder: Path, *, channels: int = 4, name: str = "tiny") -> Path:
    """Convolution, batch norm, ReLU and a mean, of two inputs whose order matters."""
    rng = np.random.default_rng(channels)
    weights = {
        "w": rng.normal(size=(channels, 3, 3, 3)).astype(np.float32),
        "scale": rng.uniform(0.5, 1.5, channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.5, 1.5, channels).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        helper.make_node("Mul", ["n", "a"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [  # "x" before "a": sorted by name they would be fed the wrong way round
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, channels, 1, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels])],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    path = folder / f"{name}{channels}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    return path


def tiny_artifact(folder: Path, cache: ArtifactCache, *, channels: int = 4) -> Artifact:
    """The same in the cache."""
    return import_onnx(tiny_network(folder, channels=channels), cache=cache)
