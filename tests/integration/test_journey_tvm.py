"""TVM: cross-compiled here, run on the emulated board, compared with ONNX Runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration_host import MEASURED, OUTPUT_FLAGS, Reached, nothing_left
from integration_models import SMALL

from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.devices import JobItem, open_session
from hwnas_sdk.devices.jobs import MeasureJob
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture
from hwnas_sdk.export.tvm import TvmCompiler
from hwnas_sdk.export.tvm_target import device_target
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.device import TINY
from hwnas_sdk.workflows.reference import expected_output

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="session")
def tvm_board(by_ssh: Reached, figures: dict[str, str]) -> Reached:
    """The board that is reached by SSH, with TVM beside ONNX Runtime."""
    said = by_ssh.host.ask("devices", "setup", by_ssh.name, "--runtime", "tvm", timeout_s=900)
    assert said.status == 0, said.errors
    assert set(said.data["runtimes"]) == {"ort", "tvm"}
    figures["ssh: setup of TVM"] = f"{said.wall_s:.1f} s"
    return by_ssh


def test_a_compiled_network_is_measured_and_says_that_it_is_untuned(tvm_board: Reached) -> None:
    said = tvm_board.host.ask("measure", SMALL[0], "--device", tvm_board.name, "--runtime", "tvm")
    assert said.status in MEASURED, said.errors
    (entry,) = said.data["measurements"]
    assert "emulated" in entry["flags"]
    assert not OUTPUT_FLAGS & set(entry["flags"])
    assert entry["latency_ms"] > 0
    assert entry["tuned"] is False
    assert "untuned" in said.errors
    assert nothing_left(tvm_board.board)


def test_outputs_agree_with_onnx_runtime(
    tvm_board: Reached,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    figures: dict[str, str],
) -> None:
    tvm_board.host.become(monkeypatch)
    space, cache = NasBench201(), ArtifactCache(tmp_path)
    networks = [
        export_architecture(space, space.decode(arch), cache=cache, folded=False) for arch in SMALL
    ]
    outputs: dict[str, list[Any]] = {}
    with open_session(tvm_board.name) as session:
        with TvmCompiler(cache, device_target(session.spec)) as compiler:
            compiled = [compiler.compile(network) for network in networks]
        for runtime, files in (("ort", networks), ("tvm", compiled)):
            items = [
                JobItem(f"i{k}", artifact.arch_id, SMALL[k], artifact, None)
                for k, artifact in enumerate(files)
            ]
            settings = MeasureSettings(**{**TINY.to_json(), "runtime": runtime})
            job = MeasureJob(f"{runtime}-{time.time_ns()}", tuple(items), settings, None, seed=1)
            result = session.measure(job)
            session.forget(job.id)
            assert [item.error_code for item in result.items] == [None] * len(items)
            outputs[runtime] = [item.facts["output"] for item in result.items]
    outputs["host"] = [expected_output(network) for network in networks]
    worst = 0.0
    for k in range(len(SMALL)):
        by_tvm, by_ort, here = (np.array(outputs[name][k]) for name in ("tvm", "ort", "host"))
        assert by_tvm.shape == here.shape
        assert np.ptp(here) > 0.01
        worst = max(worst, float(np.abs(by_tvm - by_ort).max()))
        np.testing.assert_allclose(by_tvm, by_ort, rtol=0, atol=1e-4)
        np.testing.assert_allclose(by_tvm, here, rtol=0, atol=1e-4)
    figures["tvm: largest difference to ONNX Runtime on the board"] = f"{worst:.1e}"
