"""Several runtimes in one agent, providers taken at their word, what is refused beforehand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_harness import SETTINGS, Agent, conv_net, of

Modules = Callable[[str], Any]
LIGHT = conv_net(4)
OPTIONS = {"runtime": "ort", "threads": 1, "affinity": "auto", "nice": None}


def codes(events: list[dict[str, Any]]) -> set[str]:
    return {event["code"] for event in of(events, "failed")}


def test_a_runtime_nobody_knows_fails_the_items_only(agent: Agent) -> None:
    options = {**OPTIONS, "runtime": "abacus"}
    events = agent.run("abacus", [agent.put(LIGHT), agent.put(conv_net(5))], options=options)
    assert codes(events) == {"runtime_missing"}
    assert len(of(events, "failed")) == 2
    assert "abacus" in of(events, "failed")[0]["message"]
    assert events[-1]["event"] == "job_done"
    assert agent.run("after-abacus", [agent.put(LIGHT)])[-1]["outcome"] == "done"


def test_a_provider_that_is_not_there_is_no_reason_to_take_another(agent: Agent) -> None:
    options = {**OPTIONS, "providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}
    events = agent.run("trt", [agent.put(LIGHT), agent.put(conv_net(5))], options=options)
    assert codes(events) == {"provider_missing"}
    assert "TensorrtExecutionProvider" in of(events, "failed")[0]["message"]
    assert not of(events, "block")
    assert events[0]["options"]["effective"]["providers"] == options["providers"]
    assert events[-1]["outcome"] == "done"
    named = {**OPTIONS, "providers": ["CPUExecutionProvider"]}
    assert agent.run("cpu", [agent.put(LIGHT)], options=named)[-1]["outcome"] == "done"


def test_a_session_on_another_provider_is_refused(
    agent_module: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a driver that does not fit leads to; ONNX Runtime itself only prints a line."""
    import onnxruntime

    asked: dict[str, Any] = {}
    real = onnxruntime.InferenceSession

    def fallen_back(data: bytes, options: Any, **keywords: Any) -> Any:
        asked.update(keywords)
        return real(data, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fallen_back)
    ort = agent_module("runtimes.ort")
    with pytest.raises(agent_module("runtimes.common").ModelError) as caught:
        ort.Session(
            LIGHT, threads=1, providers=["CUDAExecutionProvider"], spinning=False, input_seed=0
        )
    assert ort.failure_of(caught.value)[0] == "provider_fallback"
    assert asked["enable_fallback"] == 0


def test_on_an_accelerator_the_copies_and_the_wait_are_timed(
    agent_module: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real binding of a CPU session that claims to be another provider's."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    class Elsewhere(real):  # type: ignore[misc, valid-type]
        def __init__(self, data: bytes, options: Any, **_: Any) -> None:
            super().__init__(data, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", *super().get_providers()]

    calls: list[str] = []
    binding = type(real(LIGHT, providers=["CPUExecutionProvider"]).io_binding())
    for name in ("synchronize_inputs", "synchronize_outputs"):
        monkeypatch.setattr(binding, name, lambda _self, name=name: calls.append(name))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    session = agent_module("runtimes.ort").Session(
        LIGHT, threads=1, providers=["CUDAExecutionProvider"], spinning=False, input_seed=0
    )
    session.run()
    assert calls == ["synchronize_inputs", "synchronize_outputs"]
    assert "synchronise" in session.facts["timed_region"]
    assert session.output()[1] is True


def test_a_job_says_whether_its_networks_were_tuned(agent: Agent) -> None:
    item = agent.put(LIGHT)
    events = agent.run("tuned", [{**item, "tuned": True}, {**item, "tuned": True}])
    assert events[0]["options"]["effective"]["tuned"] is True
    assert of(events, "loaded")[0]["tuned"] is True
    events = agent.run("mixed", [{**item, "tuned": True}, {**item, "tuned": False}])
    assert events[0]["options"]["effective"]["tuned"] is None
    assert [event["tuned"] for event in of(events, "loaded")] == [True, False]
    assert events[0]["options"]["effective"]["runtime_version"]
    for wrong in ({"tuned": "yes"}, {"inputs": [["x", [1]]]}, {"inputs": [["x", [1.5], "f"]]}):
        assert agent.measure("bad", [{**item, **wrong}])["code"] == "bad_request", wrong


@pytest.mark.slow
def test_two_runtimes_side_by_side(start: Any) -> None:
    """Each has a worker of its own; the second one is started by the first job that names it."""
    pytest.importorskip("tvm")
    agent: Agent = start()
    probe = agent.ask("probe")
    assert probe["runtimes"]["tvm"]["version"].startswith("0.")
    assert "providers" not in probe["runtimes"]["tvm"], "looked up, not imported"
    assert len(agent.children()) == 1
    agent.take_lease()
    options = {**OPTIONS, "runtime": "tvm"}
    events = agent.run("tvm", [agent.put(LIGHT)], options=options)
    assert codes(events) == {"model_invalid"}, "an ONNX file is no compiled library"
    assert events[0]["options"]["effective"]["runtime"] == "tvm"
    assert len(agent.children()) == 2
    assert agent.run("ort", [agent.put(LIGHT)])[-1]["outcome"] == "done"
    assert "providers" in agent.ask("probe")["runtimes"]["tvm"]


def test_a_bare_interpreter_has_neither_runtime(start: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    agent: Agent = start(python=str(bare / "bin" / "python"))
    for _ in range(2):  # asked again it looks again
        found = agent.ask("probe")["runtimes"]
        assert {name: entry["error"]["code"] for name, entry in found.items()} == {
            "ort": "runtime_missing",
            "tvm": "runtime_missing",
        }
        assert "pip install" in found["tvm"]["error"]["message"]
    agent.take_lease()
    events = agent.run("tvm", [agent.put(LIGHT)], options={**OPTIONS, "runtime": "tvm"})
    assert codes(events) == {"runtime_missing"}


def test_after_a_crash_the_others_stay_on_their_cores(start: Any) -> None:
    agent: Agent = start()
    agent.take_lease()
    items = [agent.put(conv_net(32, 32, seed=seed)) for seed in range(3)]
    agent.measure("crash", items, settings={**SETTINGS, "min_blocks": 30, "max_blocks": 30})
    started = agent.follow("crash", lambda event: event["event"] == "block")[0]
    cores = set(started["options"]["effective"]["cores"])
    os.kill(agent.worker_pid(), signal.SIGSEGV)
    crashed = len(agent.follow("crash", lambda event: event["event"] == "failed"))
    agent.follow("crash", lambda event: event["event"] == "block" and event["seq"] > crashed)
    assert os.sched_getaffinity(agent.worker_pid()) == cores
    assert len(of(agent.follow("crash"), "finished")) == 2


def test_what_the_board_cannot_do_is_refused_before_the_job(agent: Agent) -> None:
    item = agent.put(LIGHT)
    beyond = max(os.sched_getaffinity(0)) + 1000
    refused = agent.measure("cores", [item], options={**OPTIONS, "affinity": [beyond]})
    assert refused["code"] == "core_offline"
    assert str(beyond) in refused["message"]
    assert not list((agent.work / "journal").glob("cores*"))


@pytest.mark.parametrize(
    ("memory_kib", "free_bytes", "code"),
    [(1024, 2**40, "no_memory"), (2**22, 2**20, "no_space"), (2**22, 2**40, None)],
)
def test_preflight_of_memory_and_disk(
    agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    memory_kib: int, free_bytes: int, code: str | None,
) -> None:  # fmt: skip
    preflight = agent_module("agent.preflight")
    (tmp_path / "proc").mkdir()
    text = f"MemTotal: 8000000 kB\nMemAvailable: {memory_kib} kB\n"
    (tmp_path / "proc" / "meminfo").write_text(text)
    usage = type("Usage", (), {"free": free_bytes})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: usage)
    options = {"affinity": "auto", "threads": 1}
    if code is None:
        preflight.check(options, str(tmp_path), str(tmp_path))
        return
    with pytest.raises(agent_module("agent.protocol").RequestError) as caught:
        preflight.check(options, str(tmp_path), str(tmp_path))
    assert caught.value.reply["code"] == code


def test_a_hot_board_is_waited_for_but_not_for_ever(agent_module: Modules, tmp_path: Path) -> None:
    cooling = agent_module("agent.cooling")
    sensor = tmp_path / "temp"
    sensor.write_text("71000")
    options = {"max_start_temperature_c": 60.0, "start_wait_s": 0.0}
    found = cooling.wait(options, [str(sensor)], lambda: None)
    assert (found["temperature_c"], found["reached"]) == (71.0, False)

    def cool() -> None:
        sensor.write_text("59000")

    found = cooling.wait({**options, "start_wait_s": 5.0}, [str(sensor)], cool)
    assert found["reached"] is True
    assert 0.0 < found["waited_s"] < 5.0
    assert cooling.wait(options, [], lambda: None)["reached"] is None, "no sensor, no waiting"
    assert cooling.wait({**options, "max_start_temperature_c": None}, [], lambda: None) is None


def test_the_kernel_s_own_limit_is_known(agent_module: Modules, tmp_path: Path) -> None:
    facts = agent_module("agent.facts")
    zones = {
        "thermal_zone0": ("cpu-thermal", [("passive", 80000), ("critical", 110000)]),
        "thermal_zone1": ("battery", [("passive", 45000)]),
        "thermal_zone2": ("soc-thermal", [("hot", 0), ("hot", 95000)]),
    }
    for name, (kind, trips) in zones.items():
        zone = tmp_path / "sys/class/thermal" / name
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind)
        for index, (trip, value) in enumerate(trips):
            (zone / f"trip_point_{index}_type").write_text(trip + "\n")
            (zone / f"trip_point_{index}_temp").write_text(f"{value}\n")
    assert facts.temperature_limit_c(str(tmp_path)) == 80.0
    assert facts.temperature_limit_c(str(tmp_path / "none")) is None


def test_a_job_waits_for_the_start_temperature(start: Any, tmp_path: Path) -> None:
    zone = tmp_path / "root/sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal")
    (zone / "temp").write_text("70000")
    agent: Agent = start("--sysroot", str(tmp_path / "root"))
    agent.take_lease()
    options = {**OPTIONS, "max_start_temperature_c": 65, "start_wait_s": 0.1}
    events = agent.run("hot", [agent.put(LIGHT)], options=options)
    found = events[0]["options"]["effective"]["start_temperature"]
    assert found["reached"] is False
    assert found["temperature_c"] == 70.0
    assert events[-1]["environment"]["temperature_c"] == 70.0
    agent.measure("cool", [agent.put(LIGHT)], options={**options, "start_wait_s": 60.0})
    (zone / "temp").write_text("60000")
    events = agent.follow("cool")
    assert events[0]["options"]["effective"]["start_temperature"]["reached"] is True
    for wrong in ({"start_wait_s": "long"}, {"max_start_temperature_c": True}):
        bad = {**options, **wrong}
        assert agent.measure("bad", [agent.put(LIGHT)], options=bad)["code"] == "bad_request"
