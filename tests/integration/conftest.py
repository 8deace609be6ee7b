"""Emulated boards for the whole test run, and hosts that drive them by the real command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from integration_host import Host
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
