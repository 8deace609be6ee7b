"""Ctrl-C in the middle of a real run, and the same command again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "hwnas_sdk.cli.main", "measure", "space:nasbench201", "--n", "4"]
SLOW = ["--device", "fake://?mode=slow&delay_s=0.05", "--json"]


@pytest.mark.slow
def test_the_same_command_continues_after_an_interruption() -> None:
    process = subprocess.Popen(
        [*COMMAND, *SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measure fake"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert err.endswith("interrupted; run the same command to continue\n")
    assert "Traceback" not in err

    done = subprocess.run(
        [*COMMAND, *SLOW], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["measurements"]) == 4
    assert {row["origin"] for row in answer["measurements"]} == {"simulated"}

    listed = subprocess.run(
        [sys.executable, "-m", "hwnas_sdk.cli.main", "runs", "list", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    runs = json.loads(listed.stdout)["runs"]
    assert [(run["kind"], run["n_measurements"]) for run in runs] == [("measure", 4)]
