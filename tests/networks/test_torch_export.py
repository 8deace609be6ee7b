from __future__ import annotations

import pytest

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.layers import Layer, LayerGraph
from hwnas_sdk.networks.build import build_module
from hwnas_sdk.networks.torch_export import torch_onnx_export_seconds


def tiny() -> LayerGraph:
    head = Layer("head", "linear", ("input",), (3,), {}, {"weight": (3, 4), "bias": (3,)})
    return LayerGraph("test:0", (Layer("input", "input", (), (4,)), head), folded=False)


def test_times_the_torchscript_exporter(capfd: pytest.CaptureFixture[str]) -> None:
    module = build_module(tiny())
    assert 0 < torch_onnx_export_seconds(module, (1, 4), dynamo=False) < 60
    assert module.training  # left as it was
    assert capfd.readouterr().out == ""


@pytest.mark.alone
@pytest.mark.slow
def test_times_the_dynamo_exporter(capfd: pytest.CaptureFixture[str]) -> None:
    assert 0 < torch_onnx_export_seconds(build_module(tiny()), (1, 4), dynamo=True) < 120
    assert capfd.readouterr().out == ""


def test_failure_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"^torch.onnx.export failed: [^\n]*$"):
        torch_onnx_export_seconds(build_module(tiny()), (1, 5), dynamo=False)
