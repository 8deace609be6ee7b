"""The wheel carries everything; a checkout is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_measures_without_a_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        "import sys, hwnas_sdk; from hwnas_sdk.cli.main import main; "
        "assert hwnas_sdk.__file__.startswith(sys.argv[1]), hwnas_sdk.__file__; "
        "sys.exit(main(['measure', '#6111', '--json', '-q']))"
    )
    env = {**os.environ, "PYTHONPATH": str(site), "HWNAS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(site)],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert answer["measurements"][0]["latency_ms"] > 0
