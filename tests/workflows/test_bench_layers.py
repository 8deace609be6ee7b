"""The layer-wise look-up table against whole networks: on simulators, a pretended board, here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import (
    ConfigError,
    DeviceError,
    HwnasError,
    MeasurementError,
    ModelError,
)
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER
from hwnas_sdk.simulators.simulator import ArrayCost
from hwnas_sdk.simulators.workload import ArrayWork
from hwnas_sdk.simulators.zigzag_engine import ZigZagEngine
from hwnas_sdk.workflows.bench_layers import run_bench_layers
from hwnas_sdk.workflows.lab import Lab

FAKE = "fake://?mode=ok"
MODELS = ["layers", "layers-calibrated", "flops", "params", "additive", "auto"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


@pytest.fixture
def quick_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dear 3x3 convolutions and nothing to search for: the engine takes seconds a layer."""

    def evaluate(_self: ZigZagEngine, work: ArrayWork) -> ArrayCost:
        cycles = float(work.macs) / (90.0 if work.FX == 3 else 140.0) + 1000.0
        return ArrayCost(
            cycles=cycles, compute_cycles=cycles, energy_pj=cycles, outer_energy_pj=0.0,
            outer_bytes=2.0, unrolling="none", n_mappings=1,
        )  # fmt: skip

    monkeypatch.setattr(ZigZagEngine, "evaluate", evaluate)


@pytest.mark.parametrize(
    "uri", ["sim://eyeriss", "sim://fpga", "sim://eyeriss?dataset=imagenet16_120"]
)
@pytest.mark.usefixtures("quick_engine")
def test_a_simulator_is_the_sum_of_its_layers(lab: Lab, uri: str) -> None:
    answer = run_bench_layers(lab, on=lab.device(uri), n=20)
    cycle_ms = answer["calling_ms"]
    for network in answer["networks"]:
        assert network["sum_ms"] == pytest.approx(network["latency_ms"] + cycle_ms, rel=1e-9)
    assert any("none" in network["arch"] for network in answer["networks"])
    assert answer["calibration"]["slope"] == pytest.approx(1.0, rel=1e-6)
    assert answer["models"]["layers-calibrated"]["median_ape_pct"] < 1e-6
    assert answer["models"]["layers"]["median_ape_pct"] < 0.01
    # Counting what the array does leaves out what it does not.
    assert answer["models"]["flops"]["median_ape_pct"] > 0.1


@pytest.mark.slow
def test_the_engine_itself_is_the_sum_of_its_layers(lab: Lab) -> None:
    pytest.importorskip("zigzag")
    answer = run_bench_layers(lab, on=lab.device("sim://eyeriss"), n=16)
    shares = answer["sum_over_latency"]
    assert (shares["least"], shares["most"]) == pytest.approx((1.0, 1.0), rel=1e-4)


def test_what_a_board_gives_is_compared_and_kept(lab: Lab, tmp_path: Path) -> None:
    board = lab.device(FAKE)
    answer = run_bench_layers(lab, on=board, n=16, plots=tmp_path)
    json.dumps(answer, allow_nan=False)
    assert list(answer["models"]) == MODELS
    for figures in answer["models"].values():
        assert figures["n"] == 6
        assert figures["n_tied_pairs"] >= 0
        assert figures["median_ape_pct"] > 0.0
    used = [network["used_to"] for network in answer["networks"]]
    assert used == ["learn"] * 10 + ["judge"] * 6
    assert answer["n_measured"] == 16 + answer["n_layers"]
    assert answer["board_s_layers"] > answer["board_s_samples"] > 0.0
    assert Path(answer["plots"][0]).stat().st_size > 10_000
    again = run_bench_layers(lab, on=board, n=16)
    assert (again["n_measured"], again["run"]) == (0, None)
    assert again["models"] == answer["models"]
    more = run_bench_layers(lab, on=board, n=18)
    assert more["n_measured"] <= 18 + more["n_layers"] - answer["n_layers"]  # no layer twice
    fresh = run_bench_layers(lab, on=board, n=16, fresh=True)
    assert fresh["n_measured"] == answer["n_measured"]


def test_killed_it_continues(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    board = lab.device(FAKE)
    measure: Callable[..., Any] = board.measure
    calls = 0

    def dies(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise DeviceError("gone", device_id=board.spec.id)
        return measure(*args, **options)

    monkeypatch.setattr(board, "measure", dies)
    with pytest.raises(DeviceError, match="gone"):
        run_bench_layers(lab, on=board, n=14)
    kept = len(lab.store.measurements(device_id=board.spec.id))
    assert kept == 16
    answer = run_bench_layers(lab, on=board, n=14)
    assert answer["n_measured"] == 14 + answer["n_layers"] - kept
    assert answer["run"] == lab.store.runs("measure")[0].id
    assert len(lab.store.runs("measure")) == 1


def test_the_prior_is_the_one_that_is_named(lab: Lab) -> None:
    from dataclasses import replace

    board, shipped = lab.device(FAKE), LatencyPrior.shipped()
    usual = run_bench_layers(lab, on=board, n=14)["models"]
    other = replace(shipped, deviations=shipped.deviations[:1], log_noises=shipped.log_noises[:1])
    models = run_bench_layers(lab, on=board, n=14, prior=other)["models"]
    assert models["auto"] != usual["auto"]
    assert {**models, "auto": None} == {**usual, "auto": None}


@pytest.mark.parametrize(
    ("uri", "n", "code"),
    [(FAKE, 12, ConfigError.default_code), ("fake://?mode=contended", 14, "layer_unmeasured")],
)
def test_what_cannot_be_judged_says_so(lab: Lab, uri: str, n: int, code: str) -> None:
    with pytest.raises(HwnasError) as caught:
        run_bench_layers(lab, on=lab.device(uri), n=n)
    assert caught.value.code == code
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_too_few_networks_are_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from hwnas_sdk.workflows import bench_layers

    measured = bench_layers.measure_layers

    def partly(*args: Any, **options: Any) -> Any:
        result = measured(*args, **options)
        missing = [replace(network, sum_ms=None) for network in result.networks[:2]]
        return replace(result, networks=(*missing, *result.networks[2:]))

    monkeypatch.setattr(bench_layers, "measure_layers", partly)
    with pytest.raises(MeasurementError, match="only 12 of 14 networks"):
        run_bench_layers(lab, on=lab.device(FAKE), n=14)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("bench", "layers", "--device", FAKE, "--n", "14", "-q")
    assert main([*asked, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["n_networks"] > 14
    for refused in (("--n", "5"), ("--device", "nosuch")):
        assert main([*asked, *refused, "--dry-run", "--json"]) == ConfigError.exit_code
        assert refused[1] in json.loads(capsys.readouterr().out)["error"]["message"]
    wrong = WEIGHTS_FOLDER / "nb201_accuracy_cifar10.safetensors"
    assert main([*asked, "--prior", str(wrong), "--json"]) == ModelError.exit_code
    assert "'latency_prior' is needed" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["n_measured"] == plan["n_networks"]
    assert main(list(asked)) == 0
    shown = capsys.readouterr().out
    assert "layers-calibrated" in shown
    assert "n tied pairs" in shown


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_this_machine(lab: Lab) -> None:
    """Slower layers make slower networks here too, whatever else the machine does."""
    board = lab.device("local")
    end_s = time.monotonic() + 600.0
    for _ in range(5):
        if time.monotonic() > end_s:
            pytest.skip("this machine is too busy to measure on")
        try:
            answer = run_bench_layers(lab, on=board, n=8, samples=4)
        except HwnasError as exc:
            if exc.code not in ("layer_unmeasured", "invalid_measurements"):
                raise
            continue
        break
    else:
        pytest.skip("this machine is too busy to measure on")
    assert answer["models"]["layers"]["spearman"] > 0.5
    assert 0.3 < answer["sum_over_latency"]["median"] < 3.0
    assert answer["board_s_layers"] > 0.0
