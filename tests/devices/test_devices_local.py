"""The real agent on this machine, with the real runtime and settings that are over in a moment."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices import DeviceSession, JobItem, MeasureJob, measurements_of, open_session
from hwnas_sdk.testing.device import TINY, DeviceConformance

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hwnas_sdk.devices.agent_build") is None,
    reason="the agent is not written yet",
)


def write_network(folder, width: int, name: str | None = None) -> Artifact:
    """A convolution and a mean over it: real, static, and quick."""
    weight = np.random.default_rng(width).normal(size=(width, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, width])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    sha256 = sha256_bytes(data)
    path = folder / f"{name or sha256}.onnx"
    path.write_bytes(data)
    return Artifact(
        sha256=sha256,
        format="onnx",
        arch_id=f"file:{sha256[:12]}",
        folded=False,
        producer="test",
        size_bytes=len(data),
        path=str(path),
        input_shapes={"input": (1, 3, 32, 32)},
    )


def network_items(folder, n: int) -> list[JobItem]:
    items = []
    for k in range(n):
        artifact = write_network(folder, 8 + 4 * k)
        items.append(JobItem(f"i{k}", artifact.arch_id, f"conv{k}", artifact))
    return items


class TestLocal(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path) -> None:
        self._folder = tmp_path

    def open(self) -> DeviceSession:
        return open_session("local")

    def items(self, n: int) -> Sequence[JobItem]:
        return network_items(self._folder, n)
