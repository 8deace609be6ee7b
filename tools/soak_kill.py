"""Kill a running `hwnas loop` with SIGKILL at random moments and count what was lost or repeated.

    python tools/soak_kill.py --kills 100 --seed 0 --json

Each kill hits the host process; with ``--agent-share`` some also hit the agent and its worker, as
a power cut of the board would. The same command is then given again at once. When a loop finishes,
the next one (another seed) starts, until enough kills were made; the last loop runs to its end.

Two witnesses are compared at the end, run by run: the store, and the agent's journals
(soak_witness.py says what counts as lost and as repeated). tools/soak.py does the same on remote
boards, with many kinds of faults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soak_witness import JournalKeeper, StoreWitness, judge, parsed


def board_processes(work: Path) -> list[int]:
    """Process ids of agents and workers of the board folder `work`."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                cmdline = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(work) in cmdline and "hwnas-agent" in cmdline:
                    pids.append(int(entry.name))
    return pids


CODE = re.compile(r"\[(\w+)\]$", re.MULTILINE)
NOT_QUIET = {"profile_incomplete", "invalid_measurements"}
MOST_BUSY = 5
"""Commands that may end because the machine was not quiet; more is an error."""


def main() -> int:
    """Run the soak test; exit 1 when anything was lost or repeated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--agent-share", type=float, default=0.25)
    parser.add_argument("--max-delay-s", type=float, default=8.0)
    parser.add_argument("--keep", type=Path, help="work here and leave everything in place")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        report = soak(options, home)
    print(
        json.dumps(report, indent=2)
        if options.json
        else "\n".join(f"{k}: {v}" for k, v in report.items())
    )
    return 0 if passed(report, options.kills) else 1


def passed(report: dict[str, object], kills: int) -> bool:
    """Whether nothing was lost or repeated, and enough happened to say so."""
    keys = ("lost", "repeated", "overlaps", "store_problems")
    clean = not any(report[key] for key in keys)
    tested = report["kills"] == kills and report["loops_completed"] and not report["errors"]
    # A journal can be missed only when a kill hit between its first byte and the next poll.
    witnessed = int(str(report["unwitnessed_jobs"])) <= kills
    return bool(clean and tested and witnessed)


def soak(options: argparse.Namespace, home: Path) -> dict[str, object]:
    """Kill, restart, count."""
    rng = random.Random(options.seed)
    work, store = home / "boards" / "local", StoreWitness(home / "store.sqlite")
    keeper = JournalKeeper(lambda: [work / "journal"], lambda: "")
    keeper.start()
    (home / "lease").mkdir(exist_ok=True)  # ours: nobody else's work is to wait for it
    env = {**os.environ, "HWNAS_HOME": str(home), "HWNAS_LEASE_DIR": str(home / "lease")}
    hwnas = [sys.executable, "-m", "hwnas_sdk.cli.main"]
    kills = agent_kills = completed = 0
    errors: list[str] = []
    n_busy = 0
    started = time.monotonic()
    while True:
        command = [
            *hwnas, "loop", "--device", "local", "--rounds", str(options.rounds), "--candidates",
            str(options.candidates), "--seed", str(options.seed + completed), "--json", "-q",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        last = kills >= options.kills
        try:
            process.wait(None if last else rng.uniform(0.1, options.max_delay_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
            if rng.random() < options.agent_share:
                for pid in board_processes(work):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                agent_kills += 1
        _, stderr = process.communicate()
        store.look()
        if process.returncode == 0:
            completed += 1
            if last:
                break
        elif NOT_QUIET & set(CODE.findall(stderr)) and n_busy < MOST_BUSY:
            n_busy += 1  # the error says what to do: the same again
        elif process.returncode > 0:
            errors.append(f"exit {process.returncode}: {stderr.strip()[-300:]}")
            if len(errors) > 20:
                break
    keeper.close()
    found = judge([store], keeper.journals())
    return {
        "seed": options.seed,
        "measurements": found.measurements,
        "valid": found.valid,
        "finished_on_board": found.finished_on_board,
        "unwitnessed_jobs": found.unwitnessed,
        "lost": len(found.lost),
        "repeated": len(found.repeated),
        "overlaps": len(found.overlaps),
        "lost_items": found.lost[:10],
        "repeated_items": found.repeated[:10],
        "store_problems": store_problems(home),
        "kills": kills,
        "kills_that_hit_the_agent_too": agent_kills,
        "loops_completed": completed,
        "errors": errors,
        "ended_by_a_busy_machine": n_busy,
        "duration_s": round(time.monotonic() - started, 1),
    }


def store_problems(home: Path) -> list[str]:
    """What `hwnas store check` finds."""
    check = subprocess.run(
        [sys.executable, "-m", "hwnas_sdk.cli.main", "store", "check", "--json"],
        env={**os.environ, "HWNAS_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = parsed(check.stdout)
    problems = answer.get("problems") if isinstance(answer, dict) else None
    return [check.stderr] if problems is None else list(problems)


if __name__ == "__main__":
    sys.exit(main())
