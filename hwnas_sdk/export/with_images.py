"""A network together with images to classify, as one ONNX file.

Boards are asked for latencies: they feed inputs they make themselves, and give back the first
values of the output. A file that brings its own images and puts out classes turns that into an
accuracy measured on the board, for every board and runtime that can run the network at all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.export.onnx import INPUT_NAME, OUTPUT_NAME, check_model

MAX_IMAGES: Final = 64
"""What a board gives back of an output."""

SPARK_NAME: Final = "spark"


def onnx_with_images(data: bytes, images: NDArray[np.float32]) -> bytes:
    """Put `images` into a network; what is left as input is one number that changes nothing.

    Without an input a runtime would compute the answer while loading, with other kernels.

    Args:
        data: a network of `onnx_bytes`, its batch as many as there are images.
        images: normalised, (n, C, H, W), at most `MAX_IMAGES`.

    Returns: a network from ``spark`` (1,) to ``classes`` (n,) int64, the largest logit's index.
    Raises: ExportError when images and network do not fit.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    shape = tuple(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim)
    if shape != images.shape or not 1 <= len(images) <= MAX_IMAGES:
        raise ExportError(
            f"a network for {shape} cannot take images {images.shape} (at most {MAX_IMAGES})",
            code="bad_batch",
        )
    body = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.initializer.extend(
        [
            numpy_helper.from_array(images, "spark.images"),
            numpy_helper.from_array(np.zeros((), np.float32), "spark.zero"),
        ]
    )
    graph.input.append(_value(SPARK_NAME, onnx.TensorProto.FLOAT, 1))
    graph.output.append(_value("classes", onnx.TensorProto.INT64, len(images)))
    graph.node.extend(
        [
            helper.make_node("Mul", [SPARK_NAME, "spark.zero"], ["spark.nothing"]),
            helper.make_node("Add", ["spark.images", "spark.nothing"], [INPUT_NAME]),
            *body,
            helper.make_node("ArgMax", [OUTPUT_NAME], ["classes"], axis=1, keepdims=0),
        ]
    )
    answer: bytes = model.SerializeToString()
    check_model(answer)
    return answer


def _value(name: str, kind: int, size: int) -> Any:
    return helper.make_tensor_value_info(name, kind, [size])
