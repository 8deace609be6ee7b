"""What a job brings back: real networks, real runtime, the real zipapp."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from agent_harness import FOREVER, SETTINGS, Agent, conv_net, kinds, of

LIGHT = conv_net(4)
OTHER = conv_net(6, seed=1)
HEAVY = conv_net(64, 64)


def host_output(data: bytes, seed: int) -> list[float]:
    """The first 64 output values, computed here as the protocol says the board does."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    array = np.random.RandomState(seed).uniform(-1.0, 1.0, shape).astype(np.float32)
    output = session.run(None, {"input": array})[0]
    return [float(value) for value in output.reshape(-1)[:64]]


def test_hello_and_probe_describe_the_board(agent: Agent, pyz: Path) -> None:
    hello = agent.ask("hello", protocol=[1, 1], owner="tests", news="ignored")
    assert hello["type"] == "hello"
    assert hello["protocol"] == 1
    assert hello["agent_sha"] == pyz.stem.rsplit("-", 1)[1]
    assert hello["pid"] == agent.pid

    probe = agent.ask("probe")
    device = probe["device"]
    assert device["machine"] in {"bare", "virtualised", "emulated"}
    assert device["cores"] >= 1
    assert device["memory_mib"] > 100
    assert len(device["fingerprint"]) == 16
    assert probe["runtimes"]["ort"]["version"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in probe["runtimes"]["ort"]["providers"]
    power = probe["power"]
    assert (power["source"] is None) == (power["reason"] == "no_sensor")
    assert set(probe["quiet"]) == {"nice", "affinity", "governor", "actions"}
    assert agent.ask("probe")["device"] == device


def test_a_job_brings_raw_samples_and_facts(agent: Agent) -> None:
    items: list[dict[str, Any]] = [
        {**agent.put(LIGHT), "expected": host_output(LIGHT, 0)},
        {**agent.put(OTHER), "expected": [0.5] * 64},
        agent.put(conv_net(5, seed=2)),
    ]
    events = agent.run("facts", items, sentinel=agent.put(conv_net(8, seed=3)))

    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    started, done = events[0], events[-1]
    assert started["event"] == "job_started"
    effective = started["options"]["effective"]
    assert effective["threads"] == 1
    assert len(effective["cores"]) == 1
    assert effective["providers"] == ["CPUExecutionProvider"]
    assert started["environment"]["load1"] is not None

    loaded = {event["item"]: event for event in of(events, "loaded")}
    assert [loaded[f"n{i}"]["output_matches"] for i in range(3)] == [True, False, None]
    for event in loaded.values():
        assert event["load_ns"] > 0
        assert event["first_ns"] > 0
        assert event["input_shapes"] == {"input": [1, 3, 16, 16]}
        assert event["output_finite"]
        assert event["peak_memory_bytes"] > event["runtime_memory_bytes"] > 2**20
        assert event["peak_memory_reason"] is None

    for item in ("n0", "n1", "n2"):
        blocks = of(events, "block", item)
        assert [block["block"] for block in blocks] == [0, 1, 2]
        for block in blocks:
            assert len(block["samples_ns"]) >= SETTINGS["block_min_runs"]
            assert min(block["samples_ns"]) > 0
            assert block["wall_ns"] >= sum(block["samples_ns"])
            assert block["cpu_ns"] > 0
        assert of(events, "finished", item)[0]["stop"] == "blocks"
    assert len(of(events, "block", "@sentinel")) >= 2
    assert done["event"] == "job_done"
    assert done["outcome"] == "done"
    timed_ns = sum(sum(b["samples_ns"]) for b in of(events, "block") if b["item"] != "@sentinel")
    assert done["timed_ns"] == timed_ns
    assert done["wall_ns"] > done["timed_ns"] + done["warmup_ns"] + done["sentinel_ns"]
    assert done["environment"]["load1"] is not None


def test_blocks_of_the_networks_are_interleaved(agent: Agent) -> None:
    items = [agent.put(conv_net(4, seed=seed)) for seed in range(4)]
    settings = {**SETTINGS, "min_blocks": 4, "max_blocks": 4}
    order = [block["item"] for block in of(agent.run("order-1", items, settings=settings), "block")]
    rounds = [order[i : i + 4] for i in range(0, len(order), 4)]
    assert all(sorted(names) == ["n0", "n1", "n2", "n3"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    again = [block["item"] for block in of(agent.run("order-2", items, settings=settings), "block")]
    assert again == order, "the seed fixes the order"


def test_one_bad_item_never_stops_the_others(agent: Agent) -> None:
    good = agent.put(OTHER)
    corrupt = agent.put(LIGHT)
    (agent.work / corrupt["path"]).write_bytes(LIGHT[:-7] + b"garbage")
    foreign = agent.put(b"this is not a network")
    dynamic = agent.put(conv_net(4, dynamic=True))
    missing = {"sha256": "0" * 64, "path": "artifacts/none.onnx"}
    events = agent.run("bad", [corrupt, good, foreign, dynamic, missing])
    failed = {event["item"]: event for event in of(events, "failed")}
    assert {item: event["code"] for item, event in failed.items()} == {
        "n0": "artifact_corrupt",
        "n2": "model_invalid",
        "n3": "dynamic_shape",
        "n4": "artifact_missing",
    }
    assert "dimension 0" in failed["n3"]["message"]
    assert all("\n" not in event["message"] for event in failed.values())
    assert of(events, "finished", "n1")
    assert events[-1]["outcome"] == "done"


def test_a_bad_sentinel_is_reported_and_the_job_goes_on(agent: Agent) -> None:
    events = agent.run("bad-sentinel", [agent.put(OTHER)], sentinel=agent.put(b"nonsense"))
    assert of(events, "failed", "@sentinel")[0]["code"] == "model_invalid"
    assert of(events, "finished", "n0")


def test_requests_are_answered_while_the_worker_measures(agent: Agent) -> None:
    item = agent.put(HEAVY)
    assert agent.measure("long", [item], settings=FOREVER)["type"] == "accepted"
    agent.follow("long", lambda event: event["event"] == "block")
    assert agent.ask("hello", protocol=[1, 3], owner="tests")["type"] == "hello"
    assert agent.ask("probe")["runtimes"]["ort"]["version"] == onnxruntime.__version__
    assert agent.measure("second", [item])["code"] == "busy"
    assert agent.ask("release", lease=agent.lease)["code"] == "busy"
    assert agent.ask("forget", job="long")["code"] == "busy"
    events, reply = agent.fetch("long", since=1)
    assert reply["state"] == "running"
    assert min(event["seq"] for event in events) == 2  # live ones may come before the replayed

    worker = agent.worker_pid()
    assert agent.ask("cancel", job="long")["was_running"] is True
    assert not Path(f"/proc/{worker}").exists(), "cancelled means gone"
    events, reply = agent.fetch("long")
    assert reply["state"] == "done"
    assert of(events, "failed", "n0")[0]["code"] == "cancelled"
    assert events[-1]["outcome"] == "cancelled"
    assert agent.ask("cancel", job="long")["was_running"] is False

    assert agent.run("after", [agent.put(LIGHT)])[-1]["outcome"] == "done"


@pytest.mark.alone
def test_the_deadline_ends_a_job(agent: Agent) -> None:
    events = agent.run(
        "deadline", [agent.put(HEAVY), agent.put(LIGHT)], settings=FOREVER, deadline_s=1.0
    )
    assert events[-1]["outcome"] == "deadline"
    assert {event["code"] for event in of(events, "failed")} == {"deadline"}
    assert len(of(events, "failed")) == 2
    assert events[-1]["wall_ns"] < 10e9


def test_fetch_replays_and_forget_deletes(agent: Agent) -> None:
    live = agent.run("replay", [agent.put(LIGHT)])
    replayed, reply = agent.fetch("replay")
    assert replayed == live
    assert reply == {
        "type": "fetched", "re": reply["re"], "job": "replay", "state": "done",
        "last_seq": live[-1]["seq"],
    }  # fmt: skip
    assert agent.fetch("replay", since=3)[0] == live[3:]
    assert agent.measure("replay", [agent.put(LIGHT)])["code"] == "job_exists"
    assert agent.ask("forget", job="replay")["type"] == "forgotten"
    assert agent.ask("forget", job="replay")["type"] == "forgotten"
    events, reply = agent.fetch("replay")
    assert (events, reply["state"], reply["last_seq"]) == ([], "unknown", 0)
    assert not list((agent.work / "journal").glob("replay*"))


def test_memory_is_that_of_the_network_alone(agent: Agent) -> None:
    """A large network measured first does not show up in the small one's memory."""
    big = conv_net(48, 160)  # activations of 5 MiB each
    events = agent.run("memory", [agent.put(big), agent.put(LIGHT)])
    peaks = {event["item"]: event["peak_memory_bytes"] / 2**20 for event in of(events, "loaded")}
    assert peaks["n0"] - peaks["n1"] > 8.0
    base = of(events, "loaded", "n1")[0]["runtime_memory_bytes"] / 2**20
    assert peaks["n1"] - base < 12.0


def test_energy_without_a_sensor_is_a_reason_not_a_number(
    agent: Agent, agent_module: Callable[[str], Any]
) -> None:
    power = agent_module("power").describe("/")
    settings = {**SETTINGS, "energy": True}
    if power["reason"] is None:
        return  # a machine with RAPL: the windows take half a minute, see test_agent_energy.py
    finished = of(agent.run("energy", [agent.put(LIGHT)], settings=settings), "finished")
    assert finished[0]["energy"]["reason"] == power["reason"]
    assert "gross_mj" not in finished[0]["energy"]
    not_asked = of(agent.run("no-energy", [agent.put(LIGHT)]), "finished")
    assert not_asked[0]["energy"] == {"reason": "not_requested"}


def test_the_journal_is_what_was_sent(agent: Agent) -> None:
    events = agent.run("journal", [agent.put(LIGHT)])
    text = (agent.work / "journal" / "journal.jsonl").read_text(encoding="ascii")
    assert [json.loads(line) for line in text.splitlines()] == events
    assert kinds(events)[0] == "job_started"


def test_without_pinning_and_with_too_many_threads(agent: Agent) -> None:
    options = {"runtime": "ort", "threads": 1, "affinity": None, "nice": None}
    events = agent.run("free", [agent.put(LIGHT)], options=options)
    effective = events[0]["options"]["effective"]
    assert effective["cores"] is None
    assert effective["nice"] == 0
    options = {"runtime": "ort", "threads": 10_000, "affinity": None, "nice": None}
    assert agent.measure("wide", [agent.put(LIGHT)], options=options)["code"] == "not_enough_cpu"
