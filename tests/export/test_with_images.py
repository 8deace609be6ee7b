"""A network that brings its images answers for them, and only when it runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.export.onnx import onnx_bytes
from hwnas_sdk.export.with_images import onnx_with_images


def network(batch: int) -> bytes:
    """The class is the brightest of three pixels."""
    layers = (
        Layer("input", "input", (), (1, 1, 3)),
        Layer("flat", "flatten", ("input",), (3,)),
        Layer("out", "linear", ("flat",), (3,), {}, {"weight": (3, 3)}),
    )
    graph = LayerGraph("test:0", layers, folded=True)
    return onnx_bytes(graph, {"out.weight": np.eye(3, dtype=np.float32)}, batch=batch)


def test_the_answer_is_the_class_of_each_image_whatever_it_is_fed() -> None:
    images = np.random.default_rng(0).normal(size=(17, 1, 1, 3)).astype(np.float32)
    data = onnx_with_images(network(17), images)
    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for spark in (-1.0, 0.5):
        (classes,) = session.run(None, {"spark": np.array([spark], np.float32)})
        assert classes.tolist() == images[:, 0, 0].argmax(1).tolist()


def test_no_runtime_can_compute_it_while_loading(tmp_path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    data = onnx_with_images(network(2), np.ones((2, 1, 1, 3), np.float32))
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Mul" in nodes
    assert {"Gemm", "MatMul"} & set(nodes)


@pytest.mark.parametrize("n", [0, 3, 65])
def test_images_must_fit(n: int) -> None:
    with pytest.raises(ExportError, match=r"cannot take images"):
        onnx_with_images(network(max(n, 1) if n > 64 else 2), np.zeros((n, 1, 1, 3), np.float32))
