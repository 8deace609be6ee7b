"""Whoever runs alone has nobody beside it, and is not overtaken."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from turns import turn
print("came", flush=True)
with turn(Path(sys.argv[2]), alone=sys.argv[3] == "alone"):
    print("in", flush=True)
    sys.stdin.readline()
"""


class Other:
    """Another process of a run, with a test that ends when it is told to."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(Path(__file__).parent), str(folder), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what has not been asked for stays in the pipe, where `waits` sees it
        )
        assert self.says() == "came"

    def says(self) -> str:
        """The next line; waits for it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def end(self) -> None:
        """End the test, and the process."""
        self.process.communicate(b"over\n", timeout=30)


Start = Callable[[str], Other]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Start]:
    started: list[Other] = []

    def start(kind: str) -> Other:
        started.append(Other(tmp_path, kind))
        return started[-1]

    yield start
    for one in started:
        with one.process:
            one.process.kill()


def waits(one: Other) -> bool:
    """Whether it still stands outside a moment later."""
    return not select.select([one.process.stdout], [], [], 0.2)[0]


def test_ordinary_ones_run_together(other: Start) -> None:
    assert other("beside").says() == other("beside").says() == "in"


@pytest.mark.parametrize(("first", "second"), [("alone", "beside"), ("beside", "alone")])
def test_one_that_is_alone_shares_with_nobody(other: Start, first: str, second: str) -> None:
    inside = other(first)
    assert inside.says() == "in"
    outside = other(second)
    assert waits(outside)
    inside.end()
    assert outside.says() == "in"


def test_who_waits_to_be_alone_is_not_overtaken(other: Start) -> None:
    inside = other("beside")
    assert inside.says() == "in"
    waiting = other("alone")
    assert waits(waiting)
    late = other("beside")
    assert waits(late), "it could run beside the first, but the second came before it"
    inside.end()
    assert waiting.says() == "in"
    assert waits(late)
    waiting.end()
    assert late.says() == "in"


def test_a_killed_process_is_out(other: Start) -> None:
    inside = other("alone")
    assert inside.says() == "in"
    outside = other("alone")
    inside.process.kill()
    assert outside.says() == "in"
