"""Throttling that a board tells only through a tool: polled beside the blocks, as facts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_harness import SETTINGS, Agent, conv_net, of, wait_until

Modules = Callable[[str], Any]


class FakeFamily:
    """A board whose tool says what the test wants."""

    FAMILY = "test"

    def __init__(self) -> None:
        self.now: list[str] = []
        self.sticky: list[str] = ["capped"]
        self.polls = 0

    def throttle_state(self, _root: str) -> dict[str, Any]:
        self.polls += 1
        return {"now": list(self.now), "sticky": list(self.sticky), "raw": f"poll {self.polls}"}


@pytest.fixture
def family(agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    fake = FakeFamily()
    monkeypatch.setattr(agent_module("agent.board"), "_found", {str(tmp_path): fake})
    monkeypatch.setattr(agent_module("agent.watch"), "PERIOD_S", 0.02)
    return fake


def test_what_was_set_before_is_not_the_job_s_fault(
    agent_module: Modules, family: FakeFamily, tmp_path: Path
) -> None:
    watch = agent_module("agent.watch").ThrottleWatch(str(tmp_path))
    wait_until(lambda: family.polls > 3)
    assert watch.count(0, time.monotonic_ns()) == 0
    found = watch.finish()
    assert found["seen"] == []
    assert (found["before"], found["after"]) == (["capped"], ["capped"])
    assert found["polls"] >= 4
    assert found["raw"][0] == "poll 1"


def test_bits_now_and_new_bits_are_seen_with_their_time(
    agent_module: Modules, family: FakeFamily, tmp_path: Path
) -> None:
    watch = agent_module("agent.watch").ThrottleWatch(str(tmp_path))
    watch.avoid([0])
    calm_ns = time.monotonic_ns()
    polls = family.polls
    wait_until(lambda: family.polls > polls + 1)
    begin_ns = time.monotonic_ns()
    family.now = ["under_voltage"]
    polls = family.polls
    wait_until(lambda: family.polls > polls + 2)
    assert watch.count(begin_ns, time.monotonic_ns()) >= 1
    moment_ns = time.monotonic_ns()
    assert watch.count(moment_ns, moment_ns + 1) == 1, "shorter than the time between two polls"
    family.now = []
    family.sticky = ["capped", "throttled"]  # so briefly that no poll saw it
    polls = family.polls
    wait_until(lambda: family.polls > polls + 2)
    found = watch.finish()
    names = [entry[2] for entry in found["seen"]]
    assert names[0] == ["under_voltage"]
    assert ["throttled"] in names or ["throttled", "under_voltage"] in names
    assert all(begin <= end for begin, end, _ in found["seen"])
    assert found["seen"][0][1] > begin_ns
    assert watch.count(calm_ns, calm_ns + 1) == 0
    assert found["after"] == ["capped", "throttled"]


def test_a_board_that_says_nothing_is_not_polled(agent_module: Modules, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    watch = agent_module("agent.watch").ThrottleWatch(str(tmp_path))
    assert watch.count(0, time.monotonic_ns()) is None
    assert watch.finish() is None


@pytest.mark.alone
@pytest.mark.slow
def test_a_throttled_raspberry_pi_shows_in_blocks_and_at_the_end(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: a device tree, a tool, the agent's family, the journal."""
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/compatible").write_text("raspberrypi,4-model-b\0brcm,bcm2711\0")
    bits = tmp_path / "bits"
    bits.write_text("throttled=0x0")
    tool = root / "usr/bin/vcgencmd"
    tool.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && exec cat "{bits}"\nexit 1\n')
    tool.chmod(0o755)
    agent: Agent = start("--sysroot", str(root))
    assert agent.ask("probe")["device"]["family"] == "raspberry_pi"
    agent.take_lease()
    settings = {**SETTINGS, "min_blocks": 30, "max_blocks": 30, "block_min_s": 0.1}
    settings["block_max_runs"] = 100_000
    agent.measure("hot", [agent.put(conv_net(8))], settings=settings)
    agent.follow("hot", lambda event: event["event"] == "block")
    bits.write_text("throttled=0x50005")
    events = agent.follow("hot")
    assert sum(block["throttle"] for block in of(events, "block")) >= 1
    assert events[-1]["throttle"]["seen"]
