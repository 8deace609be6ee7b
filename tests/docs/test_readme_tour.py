"""The README's tour, command by command, as a stranger would type it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


TRIES, NOT_VALID = 3, 5


def tour() -> list[str]:
    after = README.split("<!-- tour:", 1)[1]
    block = re.search(r"```sh\n(.*?)```", after, re.DOTALL)
    assert block is not None
    return block.group(1).strip().splitlines()


def python_example() -> str:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return block.group(1)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HWNAS_HOME": str(cwd / "home")}
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tour_of_commands(tmp_path: Path) -> None:
    commands = tour()
    assert len(commands) >= 10
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "hwnas"
        # A neighbour on the machine makes measurements invalid; the error says to try again.
        for _ in range(TRIES):
            done = run([sys.executable, "-m", "hwnas_sdk.cli.main", *arguments], tmp_path)
            if done.returncode != NOT_VALID:
                break
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for name in ("my-board.yaml", "front.json", "net.onnx", "loop.html", "measurements.csv"):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_python_example(tmp_path: Path) -> None:
    for _ in range(TRIES):
        done = run([sys.executable, "-W", "error", "-c", python_example()], tmp_path)
        if "valid measurement" not in done.stderr:  # else a neighbour, as above
            break
    assert done.returncode == 0, done.stderr
    assert "measured" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    root = Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (root / target).exists(), target
