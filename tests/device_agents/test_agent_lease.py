"""One agent at a time on a board: two data folders, two users, lost links, damaged files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_harness import FOREVER, Agent, conv_net, gone, wait_until

Modules = Callable[[str], Any]
LIGHT = conv_net(4)


def lease(agent: Agent, owner: str = "tests", **fields: Any) -> dict[str, Any]:
    reply = agent.ask("lease", owner=owner, ttl_s=60.0, **fields)
    agent.lease = reply.get("lease", "")
    return reply


def test_two_data_folders_on_one_board_exclude_each_other(start: Any, tmp_path: Path) -> None:
    board = tmp_path / "run-lock"
    board.mkdir()
    first: Agent = start("--lease-dir", str(board), work=tmp_path / "a")
    second: Agent = start("--lease-dir", str(board), work=tmp_path / "b")
    assert lease(first)["type"] == "lease"
    assert first.ask("hello", protocol=[1, 1], owner="x")["lease_dir"] == str(board)
    refused = lease(second)
    assert refused["code"] == "board_busy"
    assert refused["holder"]["pid"] == first.pid
    assert refused["holder"]["job"] is None
    # What the other one does says nothing of the jobs in our own folder.
    (second.work / "journal" / "mine.jsonl").write_bytes(
        b'{"type":"event","seq":1,"job":"mine","event":"job_started","t_ns":1}\n'
    )
    events, reply = second.fetch("mine")
    assert reply["state"] == "done"
    assert events[-1]["outcome"] == "crashed"
    assert second.ask("forget", job="mine")["type"] == "forgotten"

    other: Agent = start(work=tmp_path / "c")  # its own board
    assert lease(other)["type"] == "lease"
    assert first.ask("release", lease=first.lease)["type"] == "released"
    assert lease(second)["type"] == "lease"


def test_a_job_of_a_session_without_python_is_waited_for(start: Any, tmp_path: Path) -> None:
    agent: Agent = start(work=tmp_path / "a")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    holder = agent.work / "lease.d" / "holder"
    holder.parent.mkdir()
    with subprocess.Popen(["sleep", "60"]) as script:
        ticks = Path(f"/proc/{script.pid}/stat").read_text().rpartition(")")[2].split()[19]
        holder.write_text(f"{script.pid} {ticks} {boot} 99999999999 somebody job-1\n")
        refused = lease(agent)
        assert refused["code"] == "board_busy"
        holding = refused["holder"]
        assert (holding["owner"], holding["pid"]) == ("somebody", script.pid)
        assert holding["job"] == "job-1"
        holder.write_text(f"{script.pid} {ticks} {boot} 1 somebody job-1\n")  # long over
        assert lease(agent)["type"] == "lease"
        agent.ask("release", lease=agent.lease)
        holder.write_text(f"{script.pid} {ticks} {boot} 99999999999 somebody job-1\n")
        script.kill()
    assert lease(agent)["type"] == "lease"


def test_a_job_in_another_agent_is_running_not_orphaned(start: Any) -> None:
    first: Agent = start()
    lease(first)
    first.measure("long", [first.put(LIGHT)], settings=FOREVER)
    first.follow("long", lambda event: event["event"] == "block")
    second: Agent = start()
    assert second.fetch("long")[1]["state"] == "running"
    assert second.ask("forget", job="long")["code"] == "busy"
    assert lease(second, owner="other")["holder"]["job"] == "long"
    assert lease(second)["code"] == "board_busy", "the same owner does not end its own job"
    assert lease(second, session="s")["code"] == "board_busy"


def test_an_idle_agent_gives_way_to_its_own_host(start: Any) -> None:
    first: Agent = start("--host-timeout", "60")
    assert lease(first, session="laptop-1")["type"] == "lease"
    first.ask("probe")
    worker = first.worker_pid()
    assert lease(start(), owner="other", session="laptop-1")["code"] == "board_busy"
    assert lease(start(), session="laptop-2")["code"] == "board_busy", "that one still talks to it"
    again: Agent = start("--host-timeout", "60")
    assert lease(again, session="laptop-1")["type"] == "lease"
    assert first.process.wait(5.0) == -signal.SIGKILL
    assert gone(worker)
    assert again.run("next", [again.put(LIGHT)])[-1]["outcome"] == "done"


@pytest.mark.slow
def test_an_idle_agent_gives_way_when_its_host_fell_silent(start: Any) -> None:
    first: Agent = start("--host-timeout", "8")
    assert lease(first)["type"] == "lease"
    os.kill(first.pid, signal.SIGSTOP)  # it would leave by itself after eight seconds
    second: Agent = start()
    assert lease(second)["code"] == "board_busy"
    time.sleep(4.1)
    assert lease(second, owner="other")["code"] == "board_busy", "not to somebody else"
    assert lease(second)["type"] == "lease"
    assert first.process.wait(5.0) == -signal.SIGKILL


@pytest.mark.slow
def test_a_silent_host_is_taken_for_gone(start: Any) -> None:
    agent: Agent = start("--host-timeout", "1.5")
    lease(agent)
    for _ in range(4):
        time.sleep(0.5)
        assert agent.ask("ping") == {"type": "pong", "re": agent._next_id}
    assert agent.process.wait(10.0) == 0
    assert agent.lease_record() == {}
    assert "silent" in agent.stderr()


def test_a_silent_host_gets_its_job_finished(start: Any) -> None:
    agent: Agent = start("--host-timeout", "0.5")
    lease(agent)
    settings = {**FOREVER, "max_blocks": 60, "min_blocks": 60}
    agent.measure("alone", [agent.put(LIGHT)], settings=settings)
    assert agent.follow("alone")[-1]["outcome"] == "done"
    assert agent.process.wait(10.0) == 0


def test_a_host_that_speaks_again_is_served_again(start: Any) -> None:
    agent: Agent = start("--host-timeout", "2.0")
    lease(agent)
    agent.measure("long", [agent.put(LIGHT)], settings=FOREVER)
    agent.follow("long", lambda event: event["event"] == "block")
    time.sleep(2.5)
    assert agent.ask("ping")["type"] == "pong"
    assert agent.ask("cancel", job="long")["was_running"] is True
    assert agent.ask("ping")["type"] == "pong", "not gone, though no job runs any more"


def test_a_record_tidied_away_by_the_system_is_written_again(start: Any) -> None:
    agent: Agent = start()
    agent.ask("lease", owner="tests", ttl_s=1.0)
    agent.lease_file.unlink()  # what some log-ins do with a user's files when it logs out
    wait_until(agent.lease_file.exists)
    wait_until(lambda: agent.lease_record().get("pid") == agent.pid)
    assert lease(start(), owner="other")["code"] == "board_busy"


@pytest.mark.slow
def test_nobody_kills_what_the_record_merely_names(start: Any) -> None:
    """Everybody may write the record, so a stale one must not make us kill any process."""
    agent: Agent = start()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        lease(agent)
        record = {**agent.lease_record(), "pid": bystander.pid, "token": "x", "beat_s": 0.0}
        stat_text = Path(f"/proc/{bystander.pid}/stat").read_text(encoding="ascii")
        record["started_ticks"] = int(stat_text.rpartition(")")[2].split()[19])
        agent.lease_file.write_text(json.dumps(record))
        assert lease(start(), owner="other")["code"] == "board_busy"
        assert bystander.poll() is None
        bystander.kill()
    assert lease(start(), owner="other")["type"] == "lease"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": -1}', b"\xff" * 5000, b"{}" * 9000]
)
def test_a_damaged_record_is_no_record(
    agent_module: Modules, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "hwnas-agent.lease").write_bytes(content)
    keeper = agent_module("agent.lease").LeaseKeeper(str(tmp_path), str(tmp_path), lambda: None)
    assert keeper.take("me", 60.0)
    keeper.release()


def test_a_lease_of_another_boot_is_stale(agent_module: Modules, tmp_path: Path) -> None:
    module = agent_module("agent.lease")
    keeper = module.LeaseKeeper(str(tmp_path), str(tmp_path), lambda: None)
    keeper.take("me", 60.0)
    keeper._stop.set()
    path = tmp_path / "hwnas-agent.lease"
    record = json.loads(path.read_text(encoding="ascii"))
    other = module.LeaseKeeper(str(tmp_path), str(tmp_path), lambda: None)
    with pytest.raises(agent_module("agent.protocol").RequestError, match="in use"):
        other.take("you", 60.0)
    path.write_text(json.dumps({**record, "boot_id": "before"}), encoding="ascii")
    assert other.take("you", 60.0)
    other.release()


def test_where_the_board_s_lease_lies(
    agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = agent_module("agent.boardfile")
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path / "none"), str(own), str(shared)))
    assert module.default_folder("work") == str(shared), "everybody's before root's own"
    shared.chmod(0o755)
    assert module.default_folder("work") == str(own)
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path / "none"),))
    assert module.default_folder("work") == "work"


def test_the_file_is_everybody_s_and_stays_itself(start: Any) -> None:
    before = os.umask(0o077)
    try:
        agent: Agent = start()
        lease(agent)
    finally:
        os.umask(before)
    found = agent.lease_file.stat()
    assert stat.S_IMODE(found.st_mode) == 0o666
    agent.ask("release", lease=agent.lease)
    lease(agent)
    assert agent.lease_file.stat().st_ino == found.st_ino, "never replaced"
    assert agent.lease_file.stat().st_size == found.st_size, "so a full disk cannot stop it"


@pytest.mark.parametrize("trap", ["symlink", "hard_link", "fifo", "folder"])
def test_what_somebody_put_in_its_place_is_refused(start: Any, tmp_path: Path, trap: str) -> None:
    board = tmp_path / "board-wide"
    board.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = board / "hwnas-agent.lease"
    match trap:
        case "symlink":
            path.symlink_to(victim)
        case "hard_link":
            path.hardlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    refused = lease(start("--lease-dir", str(board)))
    assert refused["code"] == "lease_unusable"
    assert str(path) in refused["message"]
    assert victim.read_text() == "precious"


SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="no Python that every user may run")
def test_two_users_of_one_board_exclude_each_other(start: Any, tmp_path: Path, pyz: Path) -> None:
    """A sticky folder of everybody's, as /run/lock: neither may replace what the other made."""
    board = tmp_path / "run-lock"
    board.mkdir()
    board.chmod(0o1777)
    # pytest's own folders are the user's alone; a process of pytest-xdist has one level more.
    top = tmp_path.parents[2 if "PYTEST_XDIST_WORKER" in os.environ else 1]
    for folder in (*tmp_path.parents, tmp_path, pyz.parent):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(top):
            folder.chmod(folder.stat().st_mode | 0o011)
    pyz.chmod(0o644)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    os.chown(nobody, 65534, 65534)
    theirs: Agent = start(
        "--lease-dir", str(board), work=nobody, user=65534, python=str(SYSTEM_PYTHON)
    )
    assert lease(theirs, owner="nobody")["type"] == "lease"
    assert (board / "hwnas-agent.lease").stat().st_uid == 65534
    ours: Agent = start("--lease-dir", str(board), work=tmp_path / "ours")
    assert lease(ours)["holder"]["owner"] == "nobody"
    assert theirs.ask("release", lease=theirs.lease)["type"] == "released"
    assert lease(ours)["type"] == "lease"
    assert lease(theirs, owner="nobody")["holder"]["owner"] == "tests"
    os.kill(ours.pid, signal.SIGKILL)
    ours.process.wait()
    assert lease(theirs, owner="nobody")["type"] == "lease", "though it is root's file by content"
