"""Fixtures that start the agent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_harness import Agent

from hwnas_sdk.devices.agent_build import build_agent


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def agent_module(pyz: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module out of the zipapp: what is tested is what is shipped."""
    monkeypatch.syspath_prepend(str(pyz))
    return lambda name: importlib.import_module(f"device_agents.{name}")


Starter = Callable[..., Agent]


@pytest.fixture
def start(pyz: Path, tmp_path: Path) -> Iterator[Starter]:
    """Start agents that are gone after the test."""
    running: list[Agent] = []

    def run(*arguments: str, work: Path | None = None, **options: Any) -> Agent:
        running.append(Agent(pyz, work or tmp_path / "board", *arguments, **options))
        return running[-1]

    yield run
    for agent in running:
        agent.stop()


@pytest.fixture(scope="module")
def agent(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent with the lease, for all tests of a module that leave it in order."""
    shared = Agent(pyz, tmp_path_factory.mktemp("board"))
    shared.take_lease()
    yield shared
    shared.stop()
