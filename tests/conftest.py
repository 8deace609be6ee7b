"""Shared fixtures. Nothing here reaches the network, a GPU or the user's home folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from turns import turn

# What the tests compute is small: with several threads torch mostly spins while they wait for each
# other, on a busy machine for minutes. Read when torch is imported, and by other processes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Shared machines stall now and then; what is slow shows in --durations, not as a failure.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


_TURN = pytest.StashKey[ExitStack]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that run alone come first, in one process: the rest then divides evenly."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not _runs_alone(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Outermost, so that waiting does not count towards a test's timeout."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    if _TURN not in item.config.stash:
        # The folder of one process lies in that of the run.
        folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
        item.config.stash[_TURN] = ExitStack()
        item.config.stash[_TURN].enter_context(turn(folder, alone=_runs_alone(item)))
    try:
        return (yield)
    finally:
        # One after the other; an ordinary one between two of them would halve what runs.
        if not (nextitem and _runs_alone(item) and _runs_alone(nextitem)):
            item.config.stash[_TURN].close()
            del item.config.stash[_TURN]


def _runs_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def _data_folder() -> Path | None:
    named = os.environ.get("HWNAS_DATA")
    candidates = [Path(named)] if named else []
    candidates.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    return next((path for path in candidates if (path / "nasbench201.parquet").is_file()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public benchmark tables; skips where there is none, fails in CI."""
    folder = _data_folder()
    if folder is None:
        reason = "public benchmark tables not found; set HWNAS_DATA to their folder"
        if os.environ.get("HWNAS_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Numbered here: `mktemp` reads all that is there, each time, and there are thousands."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test gets its own data folder, and is alone on this board."""
    folder = next(_homes)
    for name in ("home", "lease"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("HWNAS_HOME", str(folder / "home"))
    monkeypatch.setenv("HWNAS_LEASE_DIR", str(folder / "lease"))


@pytest.fixture(scope="session", autouse=True)
def _own_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Agents of longer-lived fixtures never wait for a measurement of the user, nor disturb one."""
    before = os.environ.get("HWNAS_LEASE_DIR")
    os.environ["HWNAS_LEASE_DIR"] = str(tmp_path_factory.mktemp("board-lease"))
    yield
    if before is None:
        del os.environ["HWNAS_LEASE_DIR"]
    else:
        os.environ["HWNAS_LEASE_DIR"] = before
