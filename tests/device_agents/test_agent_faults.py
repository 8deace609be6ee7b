"""What the agent does when something dies, hangs, or talks nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agent_harness import FOREVER, SETTINGS, Agent, conv_net, gone, of, wait_until

LIGHT = conv_net(4)
HEAVY = conv_net(64, 64)


@pytest.mark.parametrize(
    "line",
    [
        b"hello?\n",
        b"\xff\xfe\x00\n",
        b"[1, 2]\n",
        b'{"id": 1}\n',
        b'{"id": 1, "type": 5}\n',
        b'{"id": 1, "type": "launch"}\n',
        b'{"id": 1, "type": "hello"}\n',
        b'{"id": 1, "type": "fetch", "job": "../etc/passwd", "since": 0}\n',
        b'{"id": 1, "type": "lease", "owner": "me", "ttl_s": true}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=range(10),
)
def test_nonsense_is_refused_and_nothing_breaks(agent: Agent, line: bytes) -> None:
    agent.write(b"\n  \n" + line)
    reply = agent.receive()
    assert reply["type"] == "error"
    assert reply["code"] == "bad_request"
    if b"launch" in line:
        assert reply["re"] == 1
    assert agent.ask("hello", protocol=[1, 1], owner="tests")["type"] == "hello"


def test_a_line_without_end_is_refused_and_skipped(start: Any) -> None:
    agent: Agent = start()
    agent.write(b'{"id": 1, "type": "' + b"x" * (33 * 2**20) + b'"}\n')
    assert agent.receive()["code"] == "bad_request"
    assert agent.ask("hello", protocol=[1, 1], owner="tests")["type"] == "hello"


def test_other_protocols_and_bad_jobs_are_refused(agent: Agent) -> None:
    assert agent.ask("hello", protocol=[2, 9], owner="x")["code"] == "protocol_version"
    item = agent.put(LIGHT)
    for change in (
        {"items": []},
        {"items": [{**item, "item": "a"}, {**item, "item": "a"}]},
        {"items": [{"item": "a", "sha256": "0" * 64, "path": "../outside.onnx"}]},
        {"items": [{"item": "a", "sha256": "0" * 64, "path": "/etc/passwd"}]},
        {"items": [{**item, "item": "a", "input_seed": -1}]},
        {"options": {"runtime": 5}},
        {"options": {"governor": "powersave"}},
        {"options": {"providers": [1]}},
        {"options": {"threads": 0}},
        {"options": {"affinity": "big"}},
        {"settings": {**SETTINGS, "min_blocks": "five"}},
        {"deadline_s": None},
    ):
        assert agent.measure("refused", [item], **change)["code"] == "bad_request", change
    assert agent.measure("refused", [item], lease="stolen")["code"] == "lease_lost"
    assert not list((agent.work / "journal").glob("refused*"))


def test_a_crashed_worker_costs_one_item_and_the_next_job_works(start: Any) -> None:
    agent: Agent = start()
    agent.take_lease()
    items = [agent.put(conv_net(32, 32, seed=seed)) for seed in range(3)]
    settings = {**SETTINGS, "min_blocks": 40, "max_blocks": 40, "block_min_s": 0.01}
    agent.measure("crash", items, settings=settings, sentinel=agent.put(LIGHT))
    agent.follow("crash", lambda event: event["event"] == "block" and event["block"] == 2)
    os.kill(agent.worker_pid(), signal.SIGSEGV)
    events = agent.follow("crash")
    failed = of(events, "failed")
    assert [event["code"] for event in failed] == ["runtime_crashed"]
    assert "SIGSEGV" in failed[0]["message"]
    assert len(of(events, "finished")) == 2
    for event in of(events, "finished"):
        blocks = of(events, "block", event["item"])
        assert [block["block"] for block in blocks] == list(range(40)), "earlier blocks count"
    assert len(of(events, "job_started")) == 1
    assert events[-1]["outcome"] == "done"

    events = agent.run("alone", items[:1], settings={**FOREVER, "max_blocks": 3})
    assert events[-1]["outcome"] == "done"
    agent.measure("again", items[:1], settings=FOREVER)
    agent.follow("again", lambda event: event["event"] == "block")
    os.kill(agent.worker_pid(), signal.SIGKILL)
    events = agent.follow("again")
    assert of(events, "failed")[0]["code"] == "runtime_crashed"
    assert "SIGKILL" in of(events, "failed")[0]["message"]
    assert events[-1]["outcome"] == "crashed"


def test_a_killed_agent_loses_no_block(start: Any) -> None:
    first: Agent = start()
    first.take_lease()
    first.measure("killed", [first.put(HEAVY)], settings=FOREVER)
    seen = first.follow("killed", lambda event: event["event"] == "block" and event["block"] == 3)
    worker = first.worker_pid()
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait()
    wait_until(lambda: gone(worker))  # nothing is left that could disturb the next job

    with (first.work / "journal" / "killed.jsonl").open("ab") as journal:
        journal.write(b'{"type":"event","seq":99,"jo')  # a line cut short
    second: Agent = start()
    events, reply = second.fetch("killed")
    assert reply["state"] == "done"
    assert events[: len(seen)] == seen
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["event"] == "job_done"
    assert events[-1]["outcome"] == "crashed"
    timed_ns = sum(sum(block["samples_ns"]) for block in of(events, "block"))
    assert events[-1]["timed_ns"] == timed_ns
    assert second.fetch("killed")[0] == events, "closed once"
    assert second.take_lease(), "the dead agent's lease is taken over"


def test_end_of_input_finishes_the_job_first(start: Any) -> None:
    agent: Agent = start()
    agent.take_lease()
    settings = {**SETTINGS, "min_blocks": 10, "max_blocks": 10, "block_min_s": 0.03}
    agent.measure("orphan", [agent.put(HEAVY), agent.put(LIGHT)], settings=settings)
    agent.close_input()
    assert agent.process.wait(30.0) == 0
    successor: Agent = start()
    events, reply = successor.fetch("orphan")
    assert reply["state"] == "done"
    assert events[-1]["outcome"] == "done"
    assert len(of(events, "finished")) == 2
    assert agent.lease_record() == {}


@pytest.mark.alone
def test_end_of_input_without_a_job_ends_at_once(start: Any) -> None:
    agent: Agent = start()
    agent.ask("probe")
    agent.take_lease()
    worker = agent.worker_pid()
    began_s = time.monotonic()
    agent.close_input()
    assert agent.process.wait(10.0) == 0
    assert time.monotonic() - began_s < 5.0
    assert gone(worker)
    assert agent.lease_record() == {}


def test_a_second_agent_waits_for_the_lease(start: Any) -> None:
    first: Agent = start()
    token = first.take_lease()
    assert first.ask("lease", owner="tests", ttl_s=60.0)["lease"] == token
    second: Agent = start()
    refused = second.ask("lease", owner="other", ttl_s=60.0)
    assert refused["code"] == "board_busy"
    assert refused["retryable"] is True
    assert refused["holder"]["owner"] == "tests"
    assert refused["holder"]["pid"] == first.pid
    assert first.ask("release", lease=token)["type"] == "released"
    assert second.ask("lease", owner="other", ttl_s=60.0)["type"] == "lease"
    os.kill(second.pid, signal.SIGKILL)
    second.process.wait()
    assert first.take_lease()


def test_an_agent_without_a_pulse_is_killed_for_its_lease(start: Any) -> None:
    first: Agent = start()
    second: Agent = start()
    assert second.ask("hello", protocol=[1, 3], owner="other")["type"] == "hello"
    first.ask("lease", owner="stuck", ttl_s=3.0)
    os.kill(first.pid, signal.SIGSTOP)
    assert second.ask("lease", owner="other", ttl_s=60.0)["code"] == "board_busy"
    time.sleep(3.3)
    assert second.ask("lease", owner="other", ttl_s=60.0)["type"] == "lease"
    assert first.process.wait(5.0) == -signal.SIGKILL


def test_a_lease_taken_away_ends_the_job(start: Any) -> None:
    agent: Agent = start()
    agent.lease = agent.ask("lease", owner="tests", ttl_s=1.0)["lease"]
    agent.measure("evicted", [agent.put(HEAVY)], settings=FOREVER)
    agent.follow("evicted", lambda event: event["event"] == "block")
    agent.lease_file.write_text(json.dumps({**agent.lease_record(), "token": "thief"}))
    events = agent.follow("evicted")
    assert of(events, "failed")[0]["code"] == "lease_lost"
    assert events[-1]["outcome"] == "cancelled"
    assert agent.measure("next", [agent.put(LIGHT)], lease=agent.lease)["code"] == "lease_lost"


def test_goodbye_and_sigterm_end_agent_and_worker(start: Any) -> None:
    polite: Agent = start()
    polite.take_lease()
    polite.measure("bye", [polite.put(HEAVY)], settings=FOREVER)
    polite.follow("bye", lambda event: event["event"] == "block")
    worker = polite.worker_pid()
    assert polite.ask("bye")["type"] == "bye"
    assert polite.process.wait(10.0) == 0
    assert gone(worker)

    told: Agent = start()
    told.take_lease()
    told.measure("term", [told.put(HEAVY)], settings=FOREVER)
    told.follow("term", lambda event: event["event"] == "block")
    os.kill(told.pid, signal.SIGTERM)
    assert told.follow("term")[-1]["outcome"] == "cancelled"
    assert told.process.wait(10.0) == 128 + signal.SIGTERM


def test_a_full_disk_ends_the_job_with_a_reason(start: Any) -> None:
    agent: Agent = start(file_limit_bytes=20_000)
    agent.take_lease()
    settings = {**FOREVER, "block_min_runs": 500}
    events = agent.run("full", [agent.put(LIGHT)], settings=settings)
    assert of(events, "failed")[0]["code"] == "no_space"
    assert events[-1]["event"] == "job_done"
    assert agent.ask("hello", protocol=[1, 1], owner="tests")["type"] == "hello"
    journal = agent.work / "journal" / "full.jsonl"
    assert journal.read_bytes().endswith(b"}\n"), "half a line was taken back"
    assert journal.stat().st_size < 20_000
    kept, reply = agent.fetch("full")
    assert reply["state"] == "done", "an end is sent even where it cannot be written"
    assert kept[-1]["outcome"] == "crashed"
    assert [event["seq"] for event in kept] == list(range(1, len(kept) + 1))
    blocks = of(events, "block")
    assert of(kept, "block") == blocks[: len(of(kept, "block"))]
    assert len(blocks) - len(of(kept, "block")) <= 1, "what had room is there"
    agent.limit_files(2**30)
    again = agent.run("roomy", [agent.put(LIGHT)])
    assert again[-1]["outcome"] == "done"


def test_an_end_that_cannot_be_written_is_told_all_the_same(
    agent_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = agent_module("agent.journal")
    path = tmp_path / "full.jsonl"
    path.write_bytes(b'{"seq":1,"event":"job_started"}\n{"seq":2,"eve')

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.Journal, "append", refuse)
    event = {"wall_ns": None, "environment": {}, "outcome": "crashed"}
    line = json.loads(journal.close_crashed(str(path), "full", event))
    assert (line["seq"], line["event"], line["outcome"]) == (2, "job_done", "crashed")
    monkeypatch.undo()
    assert json.loads(journal.close_crashed(str(path), "full", event)) == line
    assert journal.close_crashed(str(path), "full", event) is None, "it has its end now"


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["output", "input", "both"])
def test_a_closed_channel_does_not_stop_the_job(pyz: Path, tmp_path: Path, ends: str) -> None:
    """What a link that breaks leaves: pipes nobody holds at the other end."""
    agent = Agent(pyz, tmp_path)
    try:
        agent.take_lease()
        settings = {**SETTINGS, "min_blocks": 40, "max_blocks": 40, "block_min_s": 0.02}
        settings["block_max_runs"] = 100_000
        agent.measure("cut", [agent.put(LIGHT), agent.put(HEAVY)], settings=settings)
        agent.follow("cut", lambda event: event["event"] == "block")
        journal = tmp_path / "journal" / "cut.jsonl"
        if ends != "input":
            agent.close_output()
        if ends != "output":
            agent.close_input()
        lines = journal.read_bytes().count(b"\n")
        wait_until(lambda: b'"job_done"' in journal.read_bytes(), 60.0)
        assert journal.read_bytes().count(b"\n") > lines + 40, "it went on without us"
        assert journal.read_bytes().count(b'"finished"') == 2
        if ends == "output":
            assert agent.process.poll() is None
            agent.close_input()
        assert agent.process.wait(10.0) == 0
        assert agent.lease_record() == {}
    finally:
        agent.stop()


def test_an_interpreter_without_the_runtime_says_so(start: Any, tmp_path: Path) -> None:
    """A bare virtual environment: the agent runs, the runtime is reported missing."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    agent: Agent = start(python=str(bare / "bin" / "python"))
    error = agent.ask("probe")["runtimes"]["ort"]["error"]
    assert error["code"] == "runtime_missing"
    assert "pip install onnxruntime" in error["message"]
    agent.take_lease()
    events = agent.run("none", [agent.put(LIGHT)])
    assert of(events, "failed")[0]["code"] == "runtime_missing"
    assert events[-1]["outcome"] == "crashed"
