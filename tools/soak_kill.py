"""Kill a running `hwnas loop` with SIGKILL at random moments and count what was lost or repeated.

    python tools/soak_kill.py --kills 100 --seed 0 --json

Each kill hits the host process; with ``--agent-share`` some also hit the agent and its worker, as
a power cut of the board would. The same command is then given again at once. When a loop finishes,
the next one (another seed) starts, until enough kills were made; the last loop runs to its end.

Two witnesses that the host cannot talk to are compared at the end: the store, and the agent's
journals (hard-linked aside while the loop runs, because the host deletes them when it has stored
their results). A network counts as lost when a journal says it was finished and no record of it is
in the store, or when a record once seen in the store is missing or changed later. It counts as
repeated when the board finished it more often than the store has attempts of it, or when the store
has two valid records of one item.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path


class JournalKeeper(threading.Thread):
    """Hard-links every journal the agent opens, so that its content outlives its deletion."""

    def __init__(self, journals: Path, kept: Path) -> None:
        super().__init__(daemon=True)
        self.journals, self.kept = journals, kept
        self.stop = threading.Event()

    def run(self) -> None:
        """Poll; a journal lives for seconds, a poll takes milliseconds."""
        while not self.stop.wait(0.01):
            for path in self.journals.glob("*.jsonl"):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(path, self.kept / path.name)


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


def rows(db: Path) -> dict[tuple[str, str, int], tuple[str, object, int]]:
    """(run, item, attempt) -> (status, latency, samples) of every stored measurement."""
    if not db.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True, timeout=30)) as base:
        try:
            found = base.execute(
                "SELECT run_id, item, attempt, status, latency_ms, n_samples FROM measurement"
            ).fetchall()
        except sqlite3.OperationalError:  # killed before the first migration
            return {}
    return {(run, item, attempt): (status, ms, n) for run, item, attempt, status, ms, n in found}


def finished_on_board(kept: Path) -> Counter[str]:
    """How often the board finished each item, by the journals (item names hold their round)."""
    finished: Counter[str] = Counter()
    for path in kept.glob("*.jsonl"):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") in ("finished", "failed"):
                    finished[event["item"]] += 1
    return finished


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
    clean = not (report["lost"] or report["repeated"] or report["store_problems"])
    tested = report["kills"] == kills and report["loops_completed"] and not report["errors"]
    # A journal can be missed only when a kill hit between its first byte and the next poll.
    witnessed = int(str(report["finished_on_board"])) >= int(str(report["measurements"])) - kills
    return bool(clean and tested and witnessed)


def soak(options: argparse.Namespace, home: Path) -> dict[str, object]:
    """Kill, restart, count."""
    rng = random.Random(options.seed)
    db, work, kept = home / "store.sqlite", home / "boards" / "local", home / "kept"
    kept.mkdir(exist_ok=True)
    keeper = JournalKeeper(work / "journal", kept)
    keeper.start()
    env = {**os.environ, "HWNAS_HOME": str(home)}
    hwnas = [sys.executable, "-m", "hwnas_sdk.cli.main"]
    kills = agent_kills = loops = completed = 0
    seen: dict[tuple[str, str, int], tuple[str, object, int]] = {}
    lost: list[str] = []
    errors: list[str] = []
    started = time.monotonic()
    while True:
        command = [
            *hwnas, "loop", "--device", "local", "--rounds", str(options.rounds), "--candidates",
            str(options.candidates), "--seed", str(options.seed + loops), "--json", "-q",
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
        now = rows(db)
        lost += [f"store: {key}" for key, value in seen.items() if now.get(key) != value]
        seen = now
        if process.returncode == 0:
            loops += 1
            completed += 1
            if last:
                break
        elif process.returncode > 0:
            errors.append(f"exit {process.returncode}: {stderr.strip()[-300:]}")
            if len(errors) > 20:
                break
    keeper.stop.set()
    keeper.join()
    return judge(options, home, seen, kept, lost) | {
        "kills": kills,
        "kills_that_hit_the_agent_too": agent_kills,
        "loops_completed": completed,
        "errors": errors,
        "duration_s": round(time.monotonic() - started, 1),
    }


def judge(
    options: argparse.Namespace,
    home: Path,
    stored: dict[tuple[str, str, int], tuple[str, object, int]],
    kept: Path,
    lost: list[str],
) -> dict[str, object]:
    """Compare the two witnesses."""
    in_store = Counter(item for _, item, _ in stored)
    valid = Counter(
        (run, item) for (run, item, _), (status, _, _) in stored.items() if status == "valid"
    )
    on_board = finished_on_board(kept)
    lost += [f"board: {item}" for item, n in on_board.items() if in_store[item] < n]
    repeated = [f"store: {item}" for (_, item), n in valid.items() if n > 1]
    repeated += [f"board: {item}" for item, n in on_board.items() if n > in_store[item]]
    check = subprocess.run(
        [sys.executable, "-m", "hwnas_sdk.cli.main", "store", "check", "--json"],
        env={**os.environ, "HWNAS_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "seed": options.seed,
        "measurements": len(stored),
        "valid": sum(valid.values()),
        "finished_on_board": sum(on_board.values()),
        "lost": len(lost),
        "repeated": len(repeated),
        "lost_items": lost[:10],
        "repeated_items": repeated[:10],
        "store_problems": json.loads(check.stdout)["problems"] if check.stdout else [check.stderr],
    }


if __name__ == "__main__":
    sys.exit(main())
