"""Files that stand for networks, and small jobs over them."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.testing.device import TINY

_HOST = """
import json, sys
from hwnas_sdk.devices import MeasureJob, open_session
job = MeasureJob.from_json(json.loads(sys.argv[2]))
with open_session(sys.argv[1]) as session:
    def report(event):
        print(event.data.get("event"), event.done, flush=True)
    session.measure(job, on_event=report)
    print("over", flush=True)
"""


def _run_host_until(uri: str, job: MeasureJob, line: str) -> None:
    """Measure in another process and kill that with -9 when it prints `line`."""
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST, uri, json.dumps(job.to_json())],
        stdout=subprocess.PIPE,
        text=True,
    )
    with host:
        assert host.stdout is not None
        for printed in host.stdout:
            if printed.strip().startswith(line):
                host.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"the host never printed {line!r}")
    assert host.returncode == -signal.SIGKILL


@pytest.fixture
def kill_host() -> Callable[[str, MeasureJob, str], None]:
    """Runs a job in another process and kills that at a given moment."""
    return _run_host_until


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[[str], Artifact]:
    """Writes a file only a fake board can run."""

    def make(name: str) -> Artifact:
        content = f"network {name}".encode() * 500
        sha256 = hashlib.sha256(content).hexdigest()
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        return Artifact(
            sha256=sha256,
            format="onnx",
            arch_id=f"test:{name}",
            folded=False,
            producer="test",
            size_bytes=len(content),
            path=str(path),
            input_shapes={"input": (1, 3, 32, 32)},
        )

    return make


@pytest.fixture
def make_job(make_artifact: Callable[[str], Artifact]) -> Callable[..., MeasureJob]:
    """Makes a job over n such files."""

    def make(name: str = "job", n: int = 3, **changes: object) -> MeasureJob:
        items = tuple(
            JobItem(
                f"item{k}", f"test:{k}", f"net{k}", make_artifact(f"n{k}"), expected=(0.5, -1.0)
            )
            for k in range(n)
        )
        fields = {"settings": TINY, "sentinel": make_artifact("sentinel"), "seed": 3, **changes}
        return MeasureJob(name, items, **fields)  # type: ignore[arg-type]

    return make
