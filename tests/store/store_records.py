"""Rows for store tests, and a store with everything a measurement refers to."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.settings import PRESETS
from hwnas_sdk.core.types import Artifact, DeviceSpec, Measurement
from hwnas_sdk.store.sqlite import MeasurementStore

SETTINGS = PRESETS["quick"]
SHA = "ab" * 32
ARCH = "nasbench201:3-1-0-4-2-3"
DEVICE = DeviceSpec(
    id="x86-1",
    name="local",
    uri="local:",
    family="x86",
    soc="Some CPU",
    cores=2,
    memory_mib=4096,
    machine="bare",
    runtimes={"ort": "1.20"},
    power_reason="no_sensor",
    details={"kernel": "6.1", "nested": {"a": [1, 2.5, None]}},
)


def artifact(sha256: str = SHA, *, arch_id: str = ARCH, folded: bool = False) -> Artifact:
    return Artifact(
        sha256=sha256,
        format="onnx",
        arch_id=arch_id,
        folded=folded,
        producer="test",
        size_bytes=10,
        path="a.onnx",
        input_shapes={"input": (1, 3, 32, 32)},
    )


def put_arch(store: MeasurementStore, genotype: tuple[int, ...]) -> str:
    text = "-".join(map(str, genotype))
    arch_id = f"nasbench201:{text}"
    store.put_architecture(arch_id, space="nasbench201", arch=f"|{text}|", genotype=genotype)
    return arch_id


def registered(path: Path, **options: Any) -> MeasurementStore:
    """Open a store that knows the architecture, artifact, device and settings of `record`."""
    store = MeasurementStore.open(path, **options)
    put_arch(store, (3, 1, 0, 4, 2, 3))
    store.put_artifact(artifact())
    store.put_device(DEVICE)
    store.put_settings(SETTINGS)
    return store


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        registered(path).close()
        return path.read_bytes()


def fresh(path: Path) -> MeasurementStore:
    """Like `registered` on a new file, without its dozen disk syncs."""
    path.write_bytes(_template())
    return MeasurementStore.open(path)


def blocks_ns(seed: int, n_blocks: int = 5, n: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [1_000_000 + rng.gamma(2.0, 20_000.0, n).astype(np.int64) for _ in range(n_blocks)]


def record(run_id: str, item: str, **changes: Any) -> Measurement:
    """A valid measurement that goes with `blocks_ns`."""
    values: dict[str, Any] = {
        "arch_id": ARCH,
        "artifact_sha256": SHA,
        "device_id": DEVICE.id,
        "settings_id": SETTINGS.id,
        "origin": "measured",
        "latency_ms": 1.0 + random.Random(item).random(),
        "ci95_ms": 0.01,
        "n_samples": 200,
        "flags": ("drift_unchecked", "output_unchecked"),
        "environment": {"governor": None, "load1": 0.25},
        "details": {"block_medians_ms": [1.0, 1.25]},
        "measured_at": "2026-01-02T03:04:05+00:00",
        "run_id": run_id,
        "item": item,
    }
    return Measurement(**{**values, **changes})


def fails(code: str) -> pytest.RaisesExc:
    """Raises our error with this code, and a message of one line."""
    return pytest.RaisesExc(DataError, check=lambda exc: exc.code == code and "\n" not in str(exc))
