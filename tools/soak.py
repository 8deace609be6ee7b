"""Hurt boards while they measure, and count what was lost.

    python tools/soak.py --faults 200 --seed 0 --json            two emulated boards, SSH and ADB
    python tools/soak.py --transport local --faults 20            this machine, no emulator needed

Each round starts a small `hwnas measure`, waits for a random moment (or a random phase of the job),
does one bad thing, and gives the same command again until it succeeds. After each round: nothing
that the board finished is missing from the store, nothing was measured twice (soak_witness.py), no
process of ours is left on the board, the clock governor is what it was, no output holds a
traceback, and every error named the board and the next step.

Ctrl-C or SIGTERM: no new fault; what was begun ends, and the report is of what was done. The kinds
of faults take turns in random order. Exit status 1 when anything of the above is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak_host import Command, Host, Outcome, make_models
from soak_rigs import Fault, Rig, make_rigs
from soak_witness import JournalKeeper, Judgement, judge

HOST_KILLED, TWO_HOSTS, AGENT_KILLED = "host killed -9", "two hosts at once", "agent killed"
COMMAND_LIMIT_S = 420.0
MAX_TRIES = 12
SETTLE_S = 40.0
"""The agent of a lost link may finish its job, but not outlive it. One that did not hear the link
break leaves after 25 s of silence (`--host-timeout`); the rest is for its last steps, which take
seconds under emulation."""

PHASES = ("", "job_started", "loaded", "warmed", "block", "finished", "job_done")


@dataclass
class Round:
    """One fault and what became of it."""

    kind: str
    phase: str = ""
    survived: bool = False
    tries: int = 0
    resume_s: float = 0.0
    lost: int = 0
    repeated: int = 0
    orphans: int = 0
    governor: int = 0
    tracebacks: int = 0
    vague_errors: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Drill(threading.Thread):
    """Everything that happens to one board."""

    def __init__(
        self, rig: Rig, root: Path, *, faults: int, seed: int, minutes: float | None
    ) -> None:
        """Prepare `faults` rounds on `rig`, no new one after `minutes`."""
        super().__init__(name=rig.name, daemon=True)
        self.rig, self.n_faults, self.minutes = rig, faults, minutes
        self.rng = random.Random(f"{seed}/{rig.name}")
        self.models = make_models(root / "models", n=9)
        sentinel = self.models[-1] if rig.is_emulated else ""
        self.hosts = [
            Host(root / f"host{i}-{rig.name}", rig.environ(), sentinel=sentinel) for i in (1, 2)
        ]
        self.keeper = JournalKeeper(rig.journal_folders, rig.boot)
        self.rounds: list[Round] = []
        self.idle = 0
        self.stopped = threading.Event()
        self.typical_s = 10.0
        self.failure = ""
        self._judged = Judgement((), (), (), 0, 0, 0, 0)
        self._governors: list[str] = []

    def run(self) -> None:
        """Run all rounds; `failure` says why it ended early."""
        self.keeper.start()
        try:
            self._introduce()
            deck = self._deck()
            limit_s = float("inf") if self.minutes is None else 60.0 * self.minutes
            end_s = time.monotonic() + limit_s
            while (
                len(self.rounds) < self.n_faults
                and time.monotonic() < end_s
                and not self.stopped.is_set()
            ):
                if self.idle > 3 * self.n_faults + 20:
                    self.failure = "the command is over before the faults come"
                    break
                self._round(next(deck))
        except Exception as exc:  # noqa: BLE001 - a thread's error belongs in the report
            self.failure = f"{type(exc).__name__}: {exc}"
        finally:
            self.keeper.close()

    @property
    def judged(self) -> Judgement:
        """What the witnesses say of everything so far."""
        return judge([host.witness for host in self.hosts], self.keeper.journals())

    def _introduce(self) -> None:
        """Make the board known to both hosts, and see how long an undisturbed command takes."""
        self._governors = self.rig.governors()
        for host in self.hosts:
            self.rig.prepare(host.home)
            for name, uri in self.rig.devices.values():
                if uri:
                    host.must("devices", "add", name, uri, "--no-probe")
        for name, _ in self.rig.devices.values():
            self.hosts[0].must("measure", self.models[0], "--device", name)  # brings the agent
            took_s = self.hosts[0].must("measure", *self.models[:3], "--device", name).took_s
        self.typical_s = max(2.0, took_s)

    def _deck(self) -> Iterator[tuple[str, Fault | None]]:
        """The kinds of faults in random order, each as often as the others."""
        kinds: list[tuple[str, Fault | None]] = [(HOST_KILLED, None), (TWO_HOSTS, None)]
        kinds += sorted(self.rig.faults().items())
        while True:
            self.rng.shuffle(kinds)
            yield from kinds

    # --- one round ------------------------------------------------------------------------------

    def _round(self, card: tuple[str, Fault | None]) -> None:
        kind, fault = card
        host, other = self.rng.sample(self.hosts, 2)
        arguments = self._arguments()
        result = Round(kind)
        command = host.start(*arguments)
        if not self._wait_for_moment(command):
            self._conclude(host, arguments, command.finish(COMMAND_LIMIT_S), result, None)
            self.idle += 1
            return
        result.phase = self._phase()
        second, hit = None, True
        if kind == HOST_KILLED:
            command.kill()
        elif kind == TWO_HOSTS:
            second = (other, self._arguments())
            other_command = other.start(*second[1])
        elif fault is not None:
            hit = fault(self.rng)
        over_s = time.monotonic()
        outcome = command.finish(COMMAND_LIMIT_S)
        self._conclude(host, arguments, outcome, result, over_s)
        if second is not None:
            outcome = other_command.finish(COMMAND_LIMIT_S)
            self._conclude(*second, outcome, result, over_s)
        self._look_around(result)
        if hit:
            self.rounds.append(result)
            self._say(result)
        else:
            self.idle += 1

    def _arguments(self) -> list[str]:
        """A small command: some networks on the board, by one of the ways to reach it."""
        name, _ = self.rng.choice(sorted(self.rig.devices.values()))
        models = self.rng.sample(self.models[:-1], self.rng.randint(2, 4))
        seed = str(self.rng.randrange(10**6))
        return ["measure", *models, "--device", name, "--seed", seed]

    def _wait_for_moment(self, command: Command) -> bool:
        """Wait for a random time, or for a random phase; False when the command ended first."""
        wanted = self.rng.choice(PHASES)
        by_phase = bool(wanted) and self.rng.random() < 0.5
        limit_s = self.rng.uniform(0.0, 0.9) * self.typical_s
        began_s = time.monotonic()
        while not command.ended:
            waited_s = time.monotonic() - began_s
            if by_phase and self.keeper.phase() == wanted:
                return True
            if not by_phase and waited_s >= limit_s:
                return True
            if waited_s > 10 * self.typical_s + 60.0:
                return True
            time.sleep(0.02)
        return False

    def _phase(self) -> str:
        """Where the job is now."""
        if not self.rig.agents():
            return "connecting"
        return self.keeper.phase() or "preparing"

    def _conclude(
        self,
        host: Host,
        arguments: list[str],
        outcome: Outcome,
        result: Round,
        fault_over_s: float | None,
    ) -> None:
        """Give the command again until it succeeds, looking at every answer."""
        result.survived = outcome.done
        device = arguments[arguments.index("--device") + 1]
        while True:
            self._examine(outcome, device, result)
            host.witness.look()
            if outcome.done or result.tries >= MAX_TRIES:
                break
            result.tries += 1
            time.sleep(min(0.5 * result.tries, 5.0))
            outcome = host.start(*arguments).finish(COMMAND_LIMIT_S)
        if not outcome.done:
            result.problems.append(f"not resumed after {result.tries} tries: {outcome.text[-300:]}")
        if fault_over_s is not None:
            result.resume_s = max(result.resume_s, time.monotonic() - fault_over_s)

    @staticmethod
    def _examine(outcome: Outcome, device: str, result: Round) -> None:
        """Judge what one command said."""
        if outcome.timed_out:
            result.problems.append(f"no end after {COMMAND_LIMIT_S:.0f} s: {outcome.text[-300:]}")
        if "Traceback (most recent call last)" in outcome.text:
            result.tracebacks += 1
            result.problems.append(f"traceback: {outcome.text[-600:]}")
        if outcome.done or outcome.killed:
            return
        error = outcome.error
        result.codes[str(error.get("code"))] += 1
        if device not in str(error.get("message")) or not error.get("hint"):
            result.vague_errors += 1
            result.problems.append(f"vague error (exit {outcome.status}): {outcome.text[-300:]}")
        elif outcome.status not in {4, 5}:
            result.problems.append(f"exit {outcome.status}: {error}")

    def _look_around(self, result: Round) -> None:
        """Check what must hold after every round."""
        end_s = time.monotonic() + SETTLE_S
        while self.rig.agents() and time.monotonic() < end_s:
            time.sleep(0.2)
        orphans = self.rig.agents()
        result.orphans = len(orphans)
        result.problems += [f"still on the board: {agent.command}" for agent in orphans]
        governors = self.rig.governors()
        if governors != self._governors and result.kind == AGENT_KILLED:
            # Its guardian was killed with it: the next agent restores, whichever way it comes.
            host, arguments = self.rng.choice(self.hosts), self._arguments()
            self._conclude(
                host, arguments, host.start(*arguments).finish(COMMAND_LIMIT_S), result, None
            )
            governors = self.rig.governors()
        if governors != self._governors:
            result.governor = 1
            result.problems.append(f"governors are {governors}, were {self._governors}")
        now = self.judged
        for name in ("lost", "repeated", "overlaps"):
            fresh = [text for text in getattr(now, name) if text not in getattr(self._judged, name)]
            result.problems += [f"{name}: {text}" for text in fresh]
            if name != "overlaps":
                setattr(result, name, len(fresh))
        self._judged = now

    def _say(self, result: Round) -> None:
        state = "survived" if result.survived else f"resumed after {result.tries} tries"
        codes = f" ({', '.join(result.codes)})" if result.codes else ""
        line = f"{self.rig.name} {len(self.rounds)}/{self.n_faults}: {result.kind} "
        line += f"[{result.phase}]: {state}, {result.resume_s:.1f} s{codes}"
        print(line, *(f"\n    ! {text}" for text in result.problems), file=sys.stderr, flush=True)


# --- the report ---------------------------------------------------------------------------------


def table(rounds: list[Round]) -> list[dict[str, Any]]:
    """One row per kind of fault."""
    rows = []
    for kind in sorted({entry.kind for entry in rounds}):
        of_kind = [entry for entry in rounds if entry.kind == kind]
        row: dict[str, Any] = {"fault": kind, "n": len(of_kind)}
        row["survived"] = sum(entry.survived for entry in of_kind)
        row["resumed"] = sum(not e.survived and e.tries <= MAX_TRIES for e in of_kind)
        for key in ("lost", "repeated", "orphans", "governor", "tracebacks", "vague_errors"):
            row[key] = sum(getattr(entry, key) for entry in of_kind)
        times_s = [entry.resume_s for entry in of_kind]
        row["median_resume_s"] = round(statistics.median(times_s), 1)
        row["max_resume_s"] = round(max(times_s), 1)
        rows.append(row)
    return rows


def report_of(drills: list[Drill], options: argparse.Namespace, took_s: float) -> dict[str, Any]:
    """Everything the run found."""
    rounds = [entry for drill in drills for entry in drill.rounds]
    judged = [drill.judged for drill in drills]
    problems = [text for entry in rounds for text in entry.problems]
    problems += [f"{drill.rig.name}: {drill.failure}" for drill in drills if drill.failure]
    hosts = [host for drill in drills for host in drill.hosts]
    return {
        "faults": len(rounds),
        "boards": [drill.rig.name for drill in drills],
        "transport": options.transport,
        "seed": options.seed,
        "table": table(rounds),
        "phases": dict(Counter(entry.phase for entry in rounds)),
        "error_codes": dict(sum((entry.codes for entry in rounds), Counter())),
        "measurements": sum(found.measurements for found in judged),
        "valid": sum(found.valid for found in judged),
        "finished_on_board": sum(found.finished_on_board for found in judged),
        "unwitnessed_jobs": sum(found.unwitnessed for found in judged),
        "lost": sum(len(found.lost) for found in judged),
        "repeated": sum(len(found.repeated) for found in judged),
        "overlaps": sum(len(found.overlaps) for found in judged),
        "orphans": sum(entry.orphans for entry in rounds),
        "tracebacks": sum(entry.tracebacks for entry in rounds),
        "store_problems": [
            text for host in hosts if host.witness.path.exists() for text in host.store_problems()
        ],
        "commands_over_before_the_fault": sum(drill.idle for drill in drills),
        "problems": problems[:40],
        "duration_s": round(took_s, 1),
    }


def passed(report: dict[str, Any]) -> bool:
    """Whether everything held, and enough happened to say so."""
    keys = ("problems", "lost", "repeated", "overlaps", "orphans", "tracebacks", "store_problems")
    return bool(report["faults"]) and not any(report[key] for key in keys)


def draw(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    rows = report["table"]
    lines = []
    if rows:
        columns = list(rows[0])
        widths = [max(len(c), *(len(str(row[c])) for row in rows)) for c in columns]
        lines += [
            "  ".join(str(c).ljust(w) for c, w in zip(cells, widths, strict=True))
            for cells in [columns, *([row[c] for c in columns] for row in rows)]
        ]
    lines += [f"{key}: {value}" for key, value in report.items() if key != "table"]
    return "\n".join(lines)


def main() -> int:
    """Run; exit 1 when anything was lost, repeated, left behind or unclear."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200, help="over all boards")
    parser.add_argument(
        "--minutes", type=float, help="no new fault after this time (preparations do not count)"
    )
    parser.add_argument("--boards", type=int, default=2)
    parser.add_argument("--transport", choices=["ssh", "adb", "both", "local"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work here and leave everything in place")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root.mkdir(parents=True, exist_ok=True)
        rigs = make_rigs(options.transport, options.boards, root, stack)
        shares = [len(range(i, options.faults, len(rigs))) for i in range(len(rigs))]
        drills = [
            Drill(rig, root, faults=share, seed=options.seed, minutes=options.minutes)
            for rig, share in zip(rigs, shares, strict=True)
        ]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: [drill.stopped.set() for drill in drills])
        for drill in drills:
            drill.start()
        for drill in drills:
            drill.join()
        report = report_of(drills, options, time.monotonic() - began_s)
    print(json.dumps(report, indent=2) if options.json else draw(report))
    return 0 if passed(report) else 1


if __name__ == "__main__":
    sys.exit(main())
