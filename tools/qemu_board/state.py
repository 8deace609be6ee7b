"""Which boards exist on this machine: one folder each under /run."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

RUN_DIR = Path("/run/hwnas-board")


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a board.

    Attributes:
        number: of the board; decides names and addresses.
        adb: whether adbd is started.
        ready: whether ONNX Runtime is installed for the system's Python.
        cpufreq: whether there is a stand-in for cpufreq.
        disk_mib: size of its disk.
        owner_pid, owner_start: the process whose end is the board's end; 0 for none.
    """

    number: int
    adb: bool
    ready: bool
    cpufreq: bool
    disk_mib: int
    owner_pid: int = 0
    owner_start: int = 0


def folder(number: int) -> Path:
    """Folder of a board."""
    return RUN_DIR / str(number)


def write(record: Record) -> None:
    """Keep `record`, atomically."""
    path = folder(record.number) / "board.json"
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(record)))
    scratch.replace(path)


def read(number: int) -> Record | None:
    """The record of a board; None when there is none (or it never got that far)."""
    try:
        return Record(**json.loads((folder(number) / "board.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def numbers() -> list[int]:
    """Numbers of the boards with a folder."""
    if not RUN_DIR.is_dir():
        return []
    return sorted(int(path.name) for path in RUN_DIR.iterdir() if path.name.isdigit())


def start_time(pid: int) -> int:
    """When a process started (clock ticks since boot); 0 when it is gone, a zombie or none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def owner_is_gone(record: Record) -> bool:
    """Whether the board belongs to a process that ended."""
    return record.owner_pid != 0 and start_time(record.owner_pid) != record.owner_start


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Boards are made and removed by one process at a time; the lock ends with the process."""
    RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (RUN_DIR / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
