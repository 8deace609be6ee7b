"""Asking for an execution provider: it is used, or the network fails; never the CPU in its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices._job_request import options_of
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.testing.device import TINY
from hwnas_sdk.workflows.lab import Lab


@pytest.mark.slow
def test_a_provider_that_is_not_there_is_not_replaced() -> None:
    """It is the board that lacks something, so no network uses up an attempt."""
    wanted = "CUDAExecutionProvider,CPUExecutionProvider"
    with Lab.open() as lab:
        board = lab.device(f"local:?providers={wanted}")
        with pytest.raises(DeviceError, match="has no CUDAExecutionProvider") as caught:
            lab.measure(["#6111"], on=board, settings=TINY)
        assert caught.value.code == "provider_missing"
        assert lab.store.measurements() == []


@pytest.mark.slow
def test_the_provider_asked_for_is_used() -> None:
    with Lab.open() as lab:
        board = lab.device("local:?providers=CPUExecutionProvider")
        (record,) = lab.measure(["#6111"], on=board, settings=TINY)
    assert record.latency_ms is not None
    assert record.environment["requested"]["providers"] == ["CPUExecutionProvider"]


def test_providers_are_those_of_onnx_runtime() -> None:
    """TVM's library has its target compiled in."""
    item = JobItem("a", "test:a", "a", None)
    for runtime, expected in (("ort", ["X"]), ("tvm", None)):
        job = MeasureJob("j", (item,), replace(TINY, runtime=runtime), None, 0)
        assert options_of(job, governor=None, providers=["X"])["providers"] == expected
