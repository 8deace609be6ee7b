"""Tuning: what is skipped, what survives, what it brings; the slow tests run the real tuner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tvm_networks import tiny_network

from hwnas_sdk._tvm.process import TvmProcess
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.testing.device import TINY
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.tune import Tuner, estimated_s, mean_factor, measure_speedup

STAND_IN = """
import json, os, pathlib, signal, sys
known = False
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "layers":
        known = True
        tuned = {pathlib.Path(folder).name for folder in request["folders"]}
        layers = [
            {"key": key, "name": key, "shape": "1x3", "weight": 1, "tuned": key in tuned}
            for key in ("aa", "bb", "cc", "dd")
        ]
        reply = {"layers": layers}
    else:
        assert known, "a new child has to be told the layers first"
        if request["key"] == "bb":
            print("boom", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        pathlib.Path(request["out"]).mkdir(parents=True)
        after_us = None if request["key"] == "cc" else 2.0
        reply = {"before_us": 8.0, "after_us": after_us, "n_valid": 3}
    print(json.dumps({"ok": reply}), flush=True)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


@pytest.fixture
def stand_in_tuner(lab: Lab) -> Callable[[], Tuner]:
    """A tuner of four layers: TVM crashes on "bb", and nothing of "cc" runs."""

    def make() -> Tuner:
        process = TvmProcess([sys.executable, "-c", STAND_IN])
        return Tuner(lab.device("local"), ["net.onnx"], process=process)

    return make


@pytest.mark.slow
def test_a_layer_that_crashes_tvm_costs_that_layer(stand_in_tuner: Callable[[], Tuner]) -> None:
    with stand_in_tuner() as tuner:
        assert [layer.tuned for layer in tuner.layers()] == [False] * 4
        result = tuner.tune(trials=2)
        assert [layer.key for layer in result.layers] == ["aa", "dd"]
        assert set(result.failed) == {"bb", "cc"}
        assert "signal 9: boom" in result.failed["bb"]
        assert result.n_skipped == 0
        assert mean_factor(result.layers) == pytest.approx(4.0)
        assert [layer.key for layer in tuner.database.layers()] == ["aa", "dd"]


@pytest.mark.slow
def test_tuned_layers_are_skipped(stand_in_tuner: Callable[[], Tuner]) -> None:
    with stand_in_tuner() as tuner:
        tuner.tune(trials=2)
    with stand_in_tuner() as tuner:
        again = tuner.tune(trials=2)
    assert again.layers == ()
    assert again.n_skipped == 2
    assert set(again.failed) == {"bb", "cc"}  # tried once more


def test_estimates_grow_with_layers_and_trials() -> None:
    assert estimated_s(0, 100) == 0.0
    assert estimated_s(2, 10) == pytest.approx(2 * estimated_s(1, 10))
    assert estimated_s(1, 64) > estimated_s(1, 16)


def test_some_devices_cannot_be_tuned_on(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Tuner(lab.device("fake://?mode=ok"), [])
    assert caught.value.code == "not_tunable"
    assert "tvm-rpc://" in caught.value.hint

    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"arch": ["a"], "pi": [1.0]}), table)
    with pytest.raises(ConfigError, match="nothing to tune"):
        Tuner(lab.device(f"replay://{table}#pi"), [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tuned_once_for_every_network_that_has_the_layer(lab: Lab, tmp_path: Path) -> None:
    board = lab.device("local")
    (target,) = lab.targets([tiny_network(tmp_path)])
    files = [target.make_artifact().path]
    with Tuner(board, files) as tuner:
        result = tuner.tune(trials=2)
        assert not result.failed
        assert {layer.trials for layer in result.layers} == {2}
        assert any("conv2d" in layer.name for layer in result.layers)
        assert all(layer.after_us for layer in result.layers)
        first_id = tuner.database.id
    # Another network with the same convolution and another epilogue has nothing left to tune.
    (twin,) = lab.targets([tiny_network(tmp_path, name="twin")])
    with Tuner(board, [twin.make_artifact().path]) as tuner:
        assert all(layer.tuned for layer in tuner.layers())
        assert tuner.tune(trials=2).n_skipped == len(result.layers)
        assert tuner.database.id == first_id
    speedup = measure_speedup(lab, board, target, TINY)
    records = [lab.store.measurements(run_id=run)[-1] for run in speedup.runs]
    assert [record.details["runtime"]["tuned"] for record in records] == [False, True]
    assert not any("output_mismatch" in record.flags for record in records)
    assert records[0].artifact_sha256 != records[1].artifact_sha256


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    network = tiny_network(tmp_path)
    command = [
        sys.executable, "-m", "hwnas_sdk.cli.main", "tune", str(network),
        "--trials", "2", "--no-measure", "--json",
    ]  # fmt: skip
    tuning = Path(os.environ["HWNAS_HOME"]) / "tuning"
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with first:
        while not list(tuning.glob("*/layers/*/layer.json")):
            assert first.poll() is None, "over before it could be killed"
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    kept = {path.parent.name for path in tuning.glob("*/layers/*/layer.json")}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    answer = json.loads(done.stdout)
    assert answer["skipped"] == len(kept)
    assert not kept & {layer["key"] for layer in answer["layers"]}
    assert not answer["failed"]
    assert {"name", "shape", "trials", "before_us", "after_us"} <= set(answer["layers"][0])
    assert not list(tuning.glob("*/tmp/*"))
