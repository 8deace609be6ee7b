"""Emulated boards for the whole test run, and hosts that drive them by the real command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from integration_host import Host, Reached
from qemu_board import AdbServer, Board, is_built, unavailable


@pytest.fixture(scope="session")
def _emulation() -> None:
    """Skips where boards are impossible; in CI (HWNAS_REQUIRE_BOARD) that is a failure."""
    reason = unavailable()
    if reason is None and not is_built():
        reason = "the emulated board is not built: python tools/qemu_board build"
    if reason is not None:
        if os.environ.get("HWNAS_REQUIRE_BOARD"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def boards(_emulation: None) -> Iterator[tuple[Board, Board]]:
    """Two bare Debian boards, started at once; `hwnas devices setup` has to bring the runtime."""
    pair = (Board(cpufreq=True), Board())
    with ThreadPoolExecutor() as pool:
        list(pool.map(Board.start, pair))
    try:
        yield pair
    finally:
        for board in pair:
            board.stop()


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """An adb server with its own port and keys."""
    with AdbServer(tmp_path_factory.mktemp("adb-home")) as server:
        yield server


@pytest.fixture
def ready_board(_emulation: None) -> Iterator[Board]:
    """A board of one's own, to be broken; ONNX Runtime is installed."""
    with Board(ready=True, cpufreq=True) as board:
        yield board


@pytest.fixture(scope="session")
def make_host(
    tmp_path_factory: pytest.TempPathFactory, adb_server: AdbServer
) -> Callable[[str], Host]:
    """Makes a host: a data folder of its own, the adb server of the run."""
    return lambda name: Host(tmp_path_factory.mktemp(name), environ=adb_server.environ)


def _reach(way: str, host: Host, board: Board, figures: dict[str, str]) -> Reached:
    """The engineer's way from nothing to a board that can measure."""
    reached = Reached(way, host, board, f"by-{way}", {})
    verbs = [("add", reached.name, reached.uri), ("trust", reached.name, "--yes"),
             ("setup", reached.name), ("probe", reached.name)]  # fmt: skip
    for verb, *words in verbs:
        if (way, verb) == ("adb", "trust"):
            continue
        said = host.ask("devices", verb, *words)
        assert said.status == 0, f"devices {verb} ({way}): {said.errors}\n{board.console[-2000:]}"
        reached.said[verb] = said
    parts = ", ".join(f"{verb} {said.wall_s:.1f}" for verb, said in reached.said.items())
    total_s = sum(said.wall_s for said in reached.said.values())
    figures[f"{way}: from bare Debian to a first probe"] = f"{total_s:.1f} s ({parts})"
    return reached


@pytest.fixture(scope="session")
def by_ssh(
    boards: tuple[Board, Board], make_host: Callable[[str], Host], figures: dict[str, str]
) -> Reached:
    """The first board, over SSH as the user pi."""
    return _reach("ssh", make_host("ssh"), boards[0], figures)


@pytest.fixture(scope="session")
def by_adb(
    boards: tuple[Board, Board],
    adb_server: AdbServer,
    make_host: Callable[[str], Host],
    figures: dict[str, str],
) -> Reached:
    """The second board, over ADB."""
    adb_server.connect(boards[1].adb_serial)
    return _reach("adb", make_host("adb"), boards[1], figures)


@pytest.fixture(params=["ssh", "adb"])
def reached(request: pytest.FixtureRequest) -> Reached:
    """Each board that was reached, in turn."""
    found: Reached = request.getfixturevalue(f"by_{request.param}")
    return found


FIGURES = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, str]:
    """Measured figures, printed at the end of the run."""
    return pytestconfig.stash.setdefault(FIGURES, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the figures to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = session.config.stash.get(FIGURES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the figures of a process that ends (pytest-xdist)."""
    found = getattr(node, "workeroutput", {}).get("figures", {})
    node.config.stash.setdefault(FIGURES, {}).update(found)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures."""
    found = config.stash.get(FIGURES, {})
    if found:
        terminalreporter.section("figures of the emulated board")
        for name, value in sorted(found.items()):
            terminalreporter.write_line(f"{name}: {value}")
