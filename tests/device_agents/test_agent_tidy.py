"""What we leave on a board is removed: when asked, and by itself past a limit."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_harness import FOREVER, Agent, conv_net

Modules = Callable[[str], Any]
LIGHT = conv_net(4)
OVER = b'{"type":"event","seq":1,"job":"x","event":"job_done"}\n'
OPEN = b'{"type":"event","seq":1,"job":"x","event":"job_started"}\n'


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder in which somebody has measured before."""
    for name in ("artifacts", "journal", "agent", "incoming.999999999", f"incoming.{os.getpid()}"):
        (tmp_path / "board" / name).mkdir(parents=True)
    board = tmp_path / "board"
    for name in (f"{sha('a')}.onnx", f"{sha('b')}.so", f".{sha('c')}.onnx.77.tmp"):
        (board / "artifacts" / name).write_bytes(b"x" * 100)
    (board / "journal" / "over.jsonl").write_bytes(OPEN + OVER)
    (board / "journal" / "open.jsonl").write_bytes(OPEN)
    (board / "journal" / "cut.jsonl").write_bytes(OPEN + OVER[:-1])
    (board / "journal" / "over.jsonl.damaged").write_bytes(OPEN)
    (board / "agent" / "hwnas-agent-0123456789ab.pyz").write_bytes(b"old")
    (board / "hwnas-agent-0123456789ab.pyz").write_bytes(b"old")
    (board / "mine.txt").write_text("not ours")
    (board / "artifacts" / "photo.jpg").write_text("not ours")
    (board / "incoming.999999999" / "half.onnx").write_bytes(b"y" * 50)
    return board


def test_clean_removes_what_is_not_kept(start: Any, work: Path) -> None:
    agent: Agent = start(work=work)
    assert agent.ask("clean", lease="", keep=[])["code"] == "lease_lost"
    agent.take_lease()
    reply = agent.ask("clean", lease=agent.lease, keep=[sha("b")], journals=False)
    assert (reply["type"], reply["files"], reply["bytes"]) == ("cleaned", 5, 100 + 100 + 6 + 50)
    assert names(work / "artifacts") == {f"{sha('b')}.so", "photo.jpg"}
    assert names(work / "agent") == set()
    assert not (work / "incoming.999999999").exists()
    assert (work / f"incoming.{os.getpid()}").exists(), "an upload that goes on"
    assert (work / "mine.txt").exists()
    assert len(names(work / "journal")) == 4
    reply = agent.ask("clean", lease=agent.lease, keep=None, journals=True)
    assert names(work / "journal") == {"open.jsonl", "cut.jsonl"}, "nothing lost that is not over"
    assert names(work / "artifacts") == {f"{sha('b')}.so", "photo.jpg"}
    assert reply["files"] == 2
    assert agent.ask("clean", lease=agent.lease, keep="all")["code"] == "bad_request"


def test_clean_waits_for_a_running_job_and_spares_the_agent_itself(
    start: Any, work: Path, pyz: Path
) -> None:
    own = work / "agent" / pyz.name
    own.write_bytes(pyz.read_bytes())
    agent = Agent(own, work)
    try:
        agent.take_lease()
        agent.measure("long", [agent.put(LIGHT)], settings=FOREVER)
        assert agent.ask("clean", lease=agent.lease, keep=[])["code"] == "busy"
        agent.ask("cancel", job="long")
        agent.ask("clean", lease=agent.lease, keep=[])
        assert names(work / "agent") == {pyz.name}
    finally:
        agent.stop()


def aged(path: Path, size: int, age_s: float) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)  # sparse: takes no space
    os.utime(path, (time.time() - age_s,) * 2)


def test_artifacts_longest_unused_go_first(agent_module: Modules, work: Path) -> None:
    tidy = agent_module("agent.tidy")
    folder = work / "artifacts"
    for path in folder.iterdir():
        path.unlink()
    for age, name in enumerate("edcba"):
        aged(folder / f"{sha(name)}.onnx", 200 * 2**20, 1000.0 - age)
    removed = tidy.prune(str(work), {sha("e"), sha("d")})
    assert names(folder) == {f"{sha('e')}.onnx", f"{sha('d')}.onnx"}, "the job's own stay"
    assert removed.bytes == 600 * 2**20
    assert (folder / f"{sha('e')}.onnx").stat().st_mtime > time.time() - 100.0, "used now"
    aged(folder / f"{sha('f')}.onnx", 2**20, 5.0)
    assert tidy.prune(str(work), set()).files == 0


def test_journals_and_agents_grow_old(agent_module: Modules, work: Path) -> None:
    tidy = agent_module("agent.tidy")
    folder = work / "journal"
    for index in range(40):
        path = folder / f"j{index:02}.jsonl"
        path.write_bytes(OVER)
        os.utime(path, (time.time() - 40 * 86400.0 + index,) * 2)
    os.utime(folder / "open.jsonl", (1.0, 1.0))
    os.utime(work / "agent" / "hwnas-agent-0123456789ab.pyz", (1.0, 1.0))
    tidy.prune(str(work), set())
    left = names(folder)
    assert "open.jsonl" in left, "not over: somebody may come for it"
    assert len(left & {f"j{index:02}.jsonl" for index in range(40)}) == 29, "the newest 32 stay"
    assert "j39.jsonl" in left
    assert "j00.jsonl" not in left
    assert names(work / "agent") == set()
    assert (work / "hwnas-agent-0123456789ab.pyz").exists(), "of this week"


def test_journals_have_a_size_limit(agent_module: Modules, work: Path) -> None:
    tidy = agent_module("agent.tidy")
    for index in range(3):
        path = work / "journal" / f"big{index}.jsonl"
        aged(path, 30 * 2**20, 0.0)
        with path.open("ab") as stream:
            stream.write(b"\n" + OVER)
        os.utime(path, (time.time() - 100.0 + index,) * 2)
    tidy.prune(str(work), set())
    assert {"big1.jsonl", "big2.jsonl"} <= names(work / "journal")
    assert "big0.jsonl" not in names(work / "journal")


def test_a_job_prunes_by_itself(start: Any, work: Path) -> None:
    agent: Agent = start(work=work)
    for age, name in enumerate("xyz"):
        aged(work / "artifacts" / f"{sha(name)}.onnx", 300 * 2**20, 1000.0 - age)
    item = agent.put(LIGHT)
    assert len(names(work / "artifacts")) == 8
    assert agent.ask("lease", owner="x", ttl_s=60.0)["type"] == "lease"
    assert len(names(work / "artifacts")) == 8, "not before a job says what it needs"
    agent.ask("bye")
    other: Agent = start(work=work)
    other.take_lease()
    assert other.run("job", [item])[-1]["outcome"] == "done"
    left = names(work / "artifacts")
    assert f"{sha('x')}.onnx" not in left
    assert {f"{sha('z')}.onnx", f"{item['sha256']}.onnx"} <= left


def test_the_reply_is_what_the_host_reads(start: Any, work: Path) -> None:
    agent: Agent = start(work=work)
    agent.take_lease()
    reply = agent.ask("clean", lease=agent.lease, keep=[], journals=True)
    assert set(reply) == {"type", "re", "files", "bytes"}
    json.dumps(reply)
