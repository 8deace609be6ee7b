"""The real agent on this machine, with the real runtime and settings that are over in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices import DeviceSession, JobItem, MeasureJob, measurements_of, open_session
from hwnas_sdk.testing.device import TINY, DeviceConformance


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


@pytest.fixture
def local_job(tmp_path):
    def make(name: str, n: int = 2, **changes: object) -> MeasureJob:
        items = tuple(network_items(tmp_path, n))
        fields = {"settings": TINY, "sentinel": items[0].artifact, "seed": 5, **changes}
        return MeasureJob(name, items, **fields)  # type: ignore[arg-type]

    return make


def test_facts_of_a_real_run(local_job) -> None:
    job = local_job("facts")
    with open_session("local") as session:
        spec = session.spec
        result = session.measure(job)
        session.forget(job.id)
        records = measurements_of(
            job,
            result,
            spec=spec,
            origin=session.origin,
            baseline_sentinel_ms=None,
            run_id="r",
            attempt_of=lambda _item: 1,
        )
    assert spec.family == "x86"
    assert spec.name == "local"
    assert "ort" in spec.runtimes
    assert len(result.sentinel) >= 2
    assert result.busy_s <= result.wall_s
    assert result.environment["options"]["threads"] == 1
    for record, samples in records:
        assert record.origin == "measured"
        assert record.load_ms > 0.0
        assert record.first_ms > 0.0
        assert record.peak_memory_mib > 1.0
        assert record.details["cpu_wall_ratio"] > 0.0
        assert sum(block.size for block in samples) == record.n_samples


def test_output_is_compared_with_the_hosts(local_job) -> None:
    job = local_job("outputs", n=1)
    with open_session("local") as session:
        (first,) = session.measure(job).items
        output = first.facts["output"]
        assert first.facts["output_matches"] is None
        good = replace(job.items[0], expected=tuple(output))
        bad = replace(job.items[0], item="bad", expected=tuple(v + 1.0 for v in output))
        both = session.measure(replace(job, id="outputs-2", items=(good, bad)))
    assert [entry.facts["output_matches"] for entry in both.items] == [True, False]


@pytest.mark.slow
def test_foreign_and_truncated_files_fail_alone(local_job, tmp_path) -> None:
    job = local_job("foreign", n=1)
    items = list(job.items)
    whole = Path(items[0].artifact.path).read_bytes()
    for name, data in (("rubbish", b"not a network"), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / name
        path.write_bytes(data)
        artifact = replace(items[0].artifact, sha256=sha256_bytes(data), path=str(path))
        items.append(JobItem(name, "file:x", name, artifact))
    with open_session("local") as session:
        result = session.measure(replace(job, items=tuple(items)))
    codes = [entry.error_code for entry in result.items]
    assert codes[0] is None
    assert all(codes[1:])


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("job_started", marks=pytest.mark.slow),
        "block",
        pytest.param("job_done", marks=pytest.mark.slow),
    ],
)
def test_killed_host_loses_nothing(line, local_job, kill_host) -> None:
    job = local_job("killed")
    kill_host("local", job, line)
    with open_session("local") as session:
        recovered = session.recover(job)
        assert recovered is not None
        assert recovered.outcome == "done"
        assert [entry.error_code for entry in recovered.items] == [None, None]
        assert session.recover(job).items == recovered.items
        session.forget(job.id)
        assert session.recover(job) is None
        assert session.measure(local_job("next")).outcome == "done"


@pytest.mark.slow
def test_ctrl_c_frees_the_board(local_job) -> None:
    job = local_job("interrupted", n=3)

    def interrupt(event) -> None:
        if event.done == 1:
            raise KeyboardInterrupt

    with open_session("local") as session:
        with pytest.raises(KeyboardInterrupt):
            session.measure(job, on_event=interrupt)
        assert any(entry.error_code is None for entry in session.recover(job).items)
        assert session.measure(local_job("next")).outcome == "done"
