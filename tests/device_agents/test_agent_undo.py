"""The board is left as it was found: at release, at exit, after kill -9, after kill -9 of all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_harness import FOREVER, Agent, conv_net, gone, of, wait_until

Modules = Callable[[str], Any]
LIGHT = conv_net(4)
OPTIONS = {"runtime": "ort", "threads": 1, "affinity": "auto", "nice": None}
STEADY = {**OPTIONS, "governor": "performance"}


@pytest.fixture
def sysroot(tmp_path: Path) -> Path:
    """A board whose cores share one frequency policy, as its cores' links say."""
    cpu = tmp_path / "root" / "sys/devices/system/cpu"
    policy = cpu / "cpufreq" / "policy0"
    policy.mkdir(parents=True)
    (policy / "scaling_governor").write_text("ondemand\n")
    for core in range(os.cpu_count() or 1):
        (cpu / f"cpu{core}").mkdir()
        (cpu / f"cpu{core}" / "cpufreq").symlink_to(policy)
    return tmp_path / "root"


def governor(sysroot: Path) -> str:
    path = sysroot / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    return path.read_text().strip()


def begin(agent: Agent, job: str = "long") -> dict[str, Any]:
    """Start an endless job on a steady board; returns its first event."""
    agent.take_lease()
    agent.measure(job, [agent.put(LIGHT)], settings=FOREVER, options=STEADY)
    return agent.follow(job, lambda event: event["event"] == "block")[0]


def guardian_of(agent: Agent) -> int:
    """The child that is no worker."""
    return next(pid for pid in agent.children() if pid != agent.worker_pid())


def test_the_governor_is_set_for_jobs_and_restored_at_release(start: Any, sysroot: Path) -> None:
    agent: Agent = start("--sysroot", str(sysroot))
    agent.take_lease()
    assert agent.ask("probe")["quiet"]["governor"] is True
    events = agent.run("steady", [agent.put(LIGHT)], options=STEADY)
    assert events[0]["options"]["effective"]["governor"] == {
        "before": "ondemand", "set": "performance", "restored_by": "agent", "reason": None,
    }  # fmt: skip
    assert events[0]["environment"]["governor"] == "performance"
    assert governor(sysroot) == "performance", "kept between the jobs of one lease"
    again = agent.run("again", [agent.put(LIGHT)], options=STEADY)
    assert again[0]["options"]["effective"]["governor"]["before"] == "ondemand"
    agent.ask("release", lease=agent.lease)
    assert governor(sysroot) == "ondemand"
    assert not (agent.work / "undo.json").exists()

    agent.take_lease()
    agent.run("third", [agent.put(LIGHT)], options=STEADY)
    events = agent.run("left", [agent.put(LIGHT)], options=OPTIONS)
    assert governor(sysroot) == "ondemand", "a job that does not ask for it gets the board as it is"
    assert events[0]["options"]["effective"]["governor"]["reason"] == "not asked"


@pytest.mark.parametrize("how", ["bye", "eof", "SIGTERM", "SIGKILL"])
def test_the_governor_is_restored_however_the_agent_ends(
    start: Any, sysroot: Path, how: str
) -> None:
    agent: Agent = start("--sysroot", str(sysroot))
    begin(agent)
    guardian = guardian_of(agent)
    assert governor(sysroot) == "performance"
    match how:
        case "bye":
            agent.ask("bye")
        case "eof":
            agent.ask("cancel", job="long")
            agent.close_input()
        case _:
            os.kill(agent.pid, getattr(signal, how))
    agent.process.wait(10.0)
    wait_until(lambda: governor(sysroot) == "ondemand")
    wait_until(lambda: gone(guardian))
    assert not (agent.work / "undo.json").exists()


def test_a_kill_of_the_whole_group_does_not_reach_the_guardian(start: Any, sysroot: Path) -> None:
    agent: Agent = start("--sysroot", str(sysroot))
    begin(agent)
    os.killpg(agent.pid, signal.SIGKILL)
    wait_until(lambda: governor(sysroot) == "ondemand")


def test_the_next_agent_restores_what_a_dead_guardian_could_not(start: Any, sysroot: Path) -> None:
    agent: Agent = start("--sysroot", str(sysroot))
    begin(agent)
    os.kill(guardian_of(agent), signal.SIGKILL)
    os.kill(agent.pid, signal.SIGKILL)
    agent.process.wait(10.0)
    assert governor(sysroot) == "performance"
    successor: Agent = start("--sysroot", str(sysroot))
    successor.ask("probe")
    assert governor(sysroot) == "performance", "not without the lease: somebody may be measuring"
    successor.take_lease()
    assert governor(sysroot) == "ondemand"


def test_the_lease_is_given_when_the_dead_agent_s_settings_are_restored(
    start: Any, sysroot: Path
) -> None:
    first: Agent = start("--sysroot", str(sysroot))
    begin(first)
    guardian = guardian_of(first)
    second: Agent = start("--sysroot", str(sysroot))
    second.ask("hello", protocol=[1, 1], owner="x")
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait(10.0)
    started = begin(second, "next")
    assert gone(guardian)
    assert started["options"]["effective"]["governor"]["before"] == "ondemand"
    assert governor(sysroot) == "performance", "no late guardian undid the second agent's setting"
    second.ask("bye")
    second.process.wait(10.0)
    assert governor(sysroot) == "ondemand"


def test_what_may_not_be_set_is_a_fact(start: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    agent: Agent = start("--sysroot", str(bare))
    agent.take_lease()
    events = agent.run("none", [agent.put(LIGHT)], options=STEADY)
    effective = events[0]["options"]["effective"]
    assert effective["governor"]["set"] is None
    assert effective["governor"]["reason"] == "no cpufreq"
    assert of(events, "finished")


def test_settings_are_not_changed_when_that_cannot_be_noted(
    agent_module: Modules, sysroot: Path, tmp_path: Path
) -> None:
    (tmp_path / "work" / "undo.json.tmp").mkdir(parents=True)  # as good as a full disk
    settings = agent_module("agent.undo").Settings(str(tmp_path / "work"), str(sysroot))
    report = settings.apply("performance", [0])
    assert report["governor"]["set"] is None
    assert report["governor"]["reason"] == "cannot be noted for undoing"
    assert governor(sysroot) == "ondemand"


class FakeFamily:
    """A family with two actions, kept in files; the second refuses."""

    FAMILY = "test"

    def __init__(self, folder: Path, module: Any) -> None:
        self.folder, self.module = folder, module
        (folder / "fan").write_text("auto")
        (folder / "mode").write_text("15W")

    def quiet_actions(self, _root: str) -> list[Any]:
        def write_mode(_text: str) -> None:
            raise OSError(1, "nvpmodel: a reboot is needed")

        fan, mode = self.folder / "fan", self.folder / "mode"
        return [
            self.module.Action("fan", fan.read_text, fan.write_text, quiet="max"),
            self.module.Action("mode", mode.read_text, write_mode, quiet="MAXN"),
            self.module.Action("hidden", lambda: None, fan.write_text, quiet="x"),
        ]


def test_the_family_s_actions_are_done_and_undone(
    agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sysroot: Path
) -> None:
    board, undo = agent_module("agent.board"), agent_module("agent.undo")
    work = tmp_path / "work"
    work.mkdir()
    family = FakeFamily(work, board)
    monkeypatch.setattr(board, "_found", {str(sysroot): family})
    settings = undo.Settings(str(work), str(sysroot))
    report = settings.apply("performance", [0])
    assert report["governor"]["set"] == "performance"
    by_name = {entry["name"]: entry for entry in report["quiet"]}
    assert by_name["fan"] == {"name": "fan", "before": "auto", "set": "max"}
    assert by_name["mode"]["set"] is None
    assert "reboot" in by_name["mode"]["error"]
    assert by_name["hidden"]["error"] == "not allowed"
    assert (work / "fan").read_text() == "max"
    noted = json.loads((work / "undo.json").read_text())
    assert [entry["name"] for entry in noted["changes"]] == ["governor:policy0", "fan", "mode"]

    # After a power cut the kernel's governor is its own again; the family's settings may not be.
    (work / "undo.json").write_text(json.dumps({**noted, "boot_id": "before"}))
    (sysroot / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor").write_text("schedutil")
    undo.Settings(str(work), str(sysroot)).recover()
    assert (work / "fan").read_text() == "auto"
    assert governor(sysroot) == "schedutil"
    assert not (work / "undo.json").exists()


def test_a_damaged_note_costs_no_lease(start: Any) -> None:
    agent: Agent = start()
    for text in ('{"changes": [1]}', '{"changes": [{"name": 3}]}', "[]", "{"):
        (agent.work / "undo.json").write_text(text)
        assert agent.take_lease()
        agent.ask("release", lease=agent.lease)


def test_an_agent_with_another_work_folder_restores_too(
    start: Any, sysroot: Path, tmp_path: Path
) -> None:
    """The board was measured over SSH, agent and guardian died; the next one comes over ADB."""
    lease = tmp_path / "lease"
    lease.mkdir()
    places = ("--sysroot", str(sysroot), "--lease-dir", str(lease))
    agent: Agent = start(*places)
    begin(agent)
    os.kill(guardian_of(agent), signal.SIGKILL)
    os.kill(agent.pid, signal.SIGKILL)
    agent.process.wait(10.0)
    assert governor(sysroot) == "performance"
    other: Agent = start(*places, work=tmp_path / "elsewhere")
    other.take_lease()
    assert governor(sysroot) == "ondemand"
    assert not list(lease.glob("hwnas-undo-*"))
    # The first folder's own note does no harm later, to a governor the user has chosen since.
    began = begin(other)
    assert began["options"]["effective"]["governor"]["before"] == "ondemand"
    other.ask("bye")
    other.process.wait(10.0)
    assert governor(sysroot) == "ondemand"
    assert not list(lease.glob("hwnas-undo-*"))


@pytest.mark.parametrize(
    "note",
    [
        "[]",
        "{",
        '{"boot_id": "BOOT", "changes": [{"name": "governor:policy0", "before": "../x"}]}',
        '{"boot_id": "BOOT", "changes": [{"name": "governor:policy0", "before": 7}]}',
        '{"boot_id": "another", "changes": [{"name": "governor:policy0", "before": "powersave"}]}',
        '{"boot_id": "BOOT", "changes": [{"name": "/etc/passwd", "before": "powersave"}]}',
    ],
)
def test_notes_of_others_are_not_trusted(
    agent_module: Modules, sysroot: Path, tmp_path: Path, note: str
) -> None:
    """Everybody may write to the lease's folder."""
    path = sysroot / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    path.write_text("performance\n")
    boot = agent_module("agent.lease").boot_id("/")
    shared = tmp_path / "hwnas-undo-0123456789ab.json"
    shared.write_text(note.replace("BOOT", boot))
    work = tmp_path / "work"
    work.mkdir()
    settings = agent_module("agent.undo").Settings(str(work), str(sysroot), str(tmp_path))
    settings.recover()
    assert governor(sysroot) == "performance"
    changes = [{"name": "governor:policy0", "before": "powersave"}]
    shared.write_text(json.dumps({"boot_id": boot, "changes": changes}))
    settings.recover()
    assert governor(sysroot) == "powersave"
    path.write_text("schedutil\n")
    settings.recover()
    assert governor(sysroot) == "schedutil", "not ours any more"


def test_a_link_in_the_lease_s_folder_is_not_followed(
    agent_module: Modules, sysroot: Path, tmp_path: Path
) -> None:
    work, victim = tmp_path / "work", tmp_path / "victim"
    work.mkdir()
    victim.write_text("precious")
    settings = agent_module("agent.undo").Settings(str(work), str(sysroot), str(tmp_path))
    name = Path(settings._shared).name
    (tmp_path / name).symlink_to(victim)
    (tmp_path / f"{name}.{os.getpid()}").symlink_to(victim)
    cores = list(range(os.cpu_count() or 1))
    settings.apply("performance", cores)
    assert governor(sysroot) == "performance"
    assert victim.read_text() == "precious"
    assert not (tmp_path / name).is_symlink()
    settings.restore()
    assert governor(sysroot) == "ondemand"
    assert not (tmp_path / name).exists()
