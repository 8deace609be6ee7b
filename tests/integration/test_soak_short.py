"""A few minutes of the soak test: every kind of fault once or twice, on two boards.

The long one is run by hand: ``python tools/soak.py --faults 200 --seed 0``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak.py"


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("_emulation")
def test_nothing_is_lost_repeated_or_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--faults", "18", "--minutes", "8", "--boards", "2",
         "--transport", "both", "--seed", "0", "--keep", str(tmp_path), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["problems"] == [], done.stderr
    found = {key: report[key] for key in ("lost", "repeated", "overlaps", "orphans", "tracebacks")}
    assert set(found.values()) == {0}, found
    assert report["store_problems"] == []
    assert report["faults"] >= 6
    assert report["measurements"] >= 20
    assert report["unwitnessed_jobs"] == 0
    assert done.returncode == 0
