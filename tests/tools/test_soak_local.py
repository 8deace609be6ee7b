"""The soak tool itself, with this machine as the board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak.py"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_local_fault_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--transport", "local", "--faults", "4", "--seed", "5",
         "--minutes", "3", "--keep", str(tmp_path), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["faults"] >= 2
    assert (report["lost"], report["repeated"], report["overlaps"]) == (0, 0, 0)
    assert report["finished_on_board"] >= report["measurements"] - report["faults"] > 0
    assert done.returncode == 0


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stopped_run_reports_what_it_did(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(TOOL), "--transport", "local", "--faults", "500", "--seed", "6",
         "--keep", str(tmp_path), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert running.stderr.readline().startswith("local 1/500")
        running.terminate()
        out, errors = running.communicate()
    report = json.loads(out)
    assert report["problems"] == [], errors
    assert 1 <= report["faults"] < 500
    assert running.returncode == 0
