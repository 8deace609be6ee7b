"""Files that stand for networks, and small jobs over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.jobs import JobItem, MeasureJob
from hwnas_sdk.testing.device import TINY


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
