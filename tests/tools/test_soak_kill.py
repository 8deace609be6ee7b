"""The kill test finds what it is there to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak_kill.py"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--kills", "6", "--rounds", "1", "--candidates", "4",
         "--max-delay-s", "5", "--keep", str(tmp_path), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (report["lost"], report["repeated"], report["kills"]) == (0, 0, 6), report
    assert report["errors"] == []
    assert report["measurements"] >= 14
    assert report["unwitnessed_jobs"] <= report["kills"]
    assert report["overlaps"] == 0
