"""A process that speaks the agent's protocol without a runtime, and misbehaves on command.

Run as ``python _fake_agent.py --work DIR [--mode MODE[,MODE...]] [--seed N] [--delay-s X]``.
Latencies are made up from the artifact's size and hash, so they are the same in every run; nothing
waits for them (a job takes as long as writing its lines) unless the mode is ``slow``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import math
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

Message = dict[str, Any]
_VERSION = "fake-1"


class _FailedError(Exception):
    """A request or item that is answered with an error."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.reply = {"type": "error", "code": code, "message": message, "retryable": False}
        self.reply.update(extra)


def _modes_of(text: str) -> dict[str, int]:
    """The faults asked for: names with an optional number (1 when none is given)."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    return {name: int(number or 1) for name, _, number in pairs}


class _Board:
    """Work folder and lease of the fake board."""

    def __init__(self, work: Path, modes: dict[str, int], *, seed: int, delay_s: float) -> None:
        self.work = work
        self.modes = modes
        self.seed = seed
        self.delay_s = delay_s
        self._lock_file: IO[str] | None = None
        self._n_busy = modes.get("busy", 0)
        self.n_events = 0
        (work / "journal").mkdir(parents=True, exist_ok=True)

    def journal(self, job: str) -> Path:
        """Where the events of `job` are kept."""
        return self.work / "journal" / f"{job}.jsonl"

    def take_lease(self, owner: str) -> str:
        """Lock the board for this process; a dead process loses its lock by itself."""
        if self._n_busy > 0:
            self._n_busy -= 1
            holder = {"owner": "somebody-else", "pid": 1, "age_s": 1.0}
            raise _FailedError("board_busy", "in use", holder=holder, retryable=True)
        if self._lock_file is None:
            stream = (self.work / "lease.json").open("a+", encoding="utf-8")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                text = stream.read()
                stream.close()
                holder = json.loads(text) if text else {"owner": owner, "pid": None}
                raise _FailedError("board_busy", "in use", holder=holder, retryable=True) from None
            stream.truncate(0)
            json.dump({"owner": owner, "pid": os.getpid(), "age_s": 0.0}, stream)
            stream.flush()
            self._lock_file = stream
        return f"lease-{os.getpid()}"

    def release(self) -> None:
        """Give the lock back."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def latency_ns(self, sha256: str, path: str, number: int = 0) -> float:
        """A plausible time for one inference of item `number`; raises when it cannot run."""
        if number and self.modes.get("crash_item", 0) == number:
            raise _FailedError("runtime_crashed", "ended by SIGSEGV")
        try:
            content = (self.work / path).read_bytes()
        except OSError as exc:
            raise _FailedError("artifact_missing", f"no file {path}: {exc}") from exc
        if hashlib.sha256(content).hexdigest() != sha256 or "wrong_hash" in self.modes:
            raise _FailedError("artifact_corrupt", f"{path} is not what its hash says")
        share = int(sha256[:8], 16) / 2**32
        return 1e6 * (0.15 + 0.4 * len(content) / 2**20 + 0.6 * share)


class _FakeAgent:
    """Answers requests on stdin; one job at a time runs in a thread beside it."""

    def __init__(self, board: _Board) -> None:
        self._board = board
        self._modes = board.modes
        self._write_lock = threading.Lock()
        self._cancelled = threading.Event()
        self._job: threading.Thread | None = None

    def serve(self) -> int:
        """Read requests until the host says goodbye or is gone."""
        for line in sys.stdin:
            message = json.loads(line)
            reply_to = message.get("id")
            handler = getattr(self, f"_on_{message.get('type')}", self._on_unknown)
            try:
                reply = handler(message)
            except _FailedError as failure:
                reply = failure.reply
            if reply is None:
                continue
            self.write({**reply, "re": reply_to})
            if reply["type"] == "accepted":
                self._start(message)
            if reply["type"] == "bye":
                break
        if self._job is not None:
            self._job.join()  # the host is gone: finish, journal, leave
        self._board.release()
        return 0

    def write(self, message: Message) -> None:
        """Write one line."""
        self.write_raw(json.dumps(message) + "\n")

    def write_raw(self, text: str) -> None:
        """Write any text; a host that is gone is no reason to stop."""
        with self._write_lock, contextlib.suppress(BrokenPipeError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()

    @staticmethod
    def _on_unknown(message: Message) -> Message | None:
        raise _FailedError("bad_request", f"unknown type {message.get('type')!r}")

    # --- requests -----------------------------------------------------------------------------

    def _on_hello(self, message: Message) -> Message | None:
        del message
        if "hang_hello" in self._modes:
            return None
        if "die_at_start" in self._modes:
            sys.stderr.write("fake: no runtime here\n")
            sys.stderr.flush()
            os._exit(7)
        return {
            "type": "hello",
            "protocol": 99 if "old_protocol" in self._modes else 1,
            "agent_version": _VERSION,
            "agent_sha": "0" * 12,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "boot_id": "fake",
        }

    def _on_probe(self, message: Message) -> Message:
        del message
        return {
            "type": "probe",
            "device": {
                "family": "fake",
                "soc": "imaginary",
                "arch": "fake64",
                "cores": 1,
                "memory_mib": 64,
                "machine": "bare",
                "os": "none",
                "kernel": "none",
                "hostname_hash": "0" * 16,
                "fingerprint": hashlib.sha256(f"fake:{self._board.seed}".encode()).hexdigest()[:16],
            },
            "environment": _environment(),
            "runtimes": {"ort": {"version": "0.0-fake", "providers": ["FakeProvider"]}},
            "power": {"source": None, "scope": None, "reason": "no_sensor", "detail": "imaginary"},
            "quiet": {"nice": True, "affinity": True, "governor": True},
        }

    def _on_lease(self, message: Message) -> Message:
        return {"type": "lease", "lease": self._board.take_lease(message["owner"])}

    def _on_release(self, message: Message) -> Message:
        del message
        self._board.release()
        return {"type": "released"}

    def _on_measure(self, message: Message) -> Message | None:
        if message["lease"] != f"lease-{os.getpid()}" or self._modes.pop("lease_lost", 0):
            raise _FailedError("lease_lost", "measure needs the lease")
        if "hang" in self._modes:
            return None
        if "out_of_order" in self._modes:
            self.write({"type": "accepted", "re": message["id"] + 1000, "job": message["job"]})
            return None
        return {"type": "accepted", "job": message["job"]}

    def _on_fetch(self, message: Message) -> Message | None:
        if "hang" in self._modes:
            return None
        events = list(_read_journal(self._board.journal(message["job"])))
        for event in events:
            if event["seq"] > message["since"]:
                self.write(event)
        state = "unknown"
        if events:
            is_over = events[-1]["event"] == "job_done"
            state = "done" if is_over else "running"
        last_seq = events[-1]["seq"] if events else 0
        return {"type": "fetched", "job": message["job"], "state": state, "last_seq": last_seq}

    def _on_cancel(self, message: Message) -> Message:
        self._cancelled.set()
        if self._job is not None:
            self._job.join()
        return {"type": "cancelled", "job": message["job"]}

    def _on_forget(self, message: Message) -> Message:
        self._board.journal(message["job"]).unlink(missing_ok=True)
        return {"type": "forgotten", "job": message["job"]}

    @staticmethod
    def _on_bye(message: Message) -> Message:
        del message
        return {"type": "bye"}

    # --- jobs ---------------------------------------------------------------------------------

    def _start(self, message: Message) -> None:
        self._cancelled.clear()
        self._job = threading.Thread(target=_FakeJob(self, self._board, message).run)
        self._job.start()

    def pause(self, duration_s: float) -> None:
        """Wait, but not once the job was cancelled."""
        self._cancelled.wait(duration_s)

    def cancelled(self) -> bool:
        """Whether the running job should end."""
        return self._cancelled.is_set()


class _FakeJob:
    """One job: made-up blocks in the order a real board would take them."""

    def __init__(self, agent: _FakeAgent, board: _Board, message: Message) -> None:
        self._agent = agent
        self._board = board
        self._modes = board.modes
        self._message = message
        self._settings: Mapping[str, Any] = message["settings"]
        self._seq = 0
        self._totals = dict.fromkeys(("warmup_ns", "timed_ns", "load_ns", "sentinel_ns"), 0)
        self._n_sentinel = 0

    def run(self) -> None:
        """Write the whole job."""
        options = self._message["options"]
        effective = {
            "nice": options.get("nice"),
            "cores": [0],
            "threads": options.get("threads", 1),
            "providers": ["FakeProvider"],
            "ort_version": "0.0-fake",
        }
        self._event(
            "job_started",
            environment=_environment(),
            options={"effective": effective},
            t_ns=time.monotonic_ns(),
        )
        self._sentinel()
        live = {}
        for number, item in enumerate(self._message["items"], start=1):
            latency_ns = self._load(item, number)
            if latency_ns is not None:
                live[item["item"]] = latency_ns
        blocks: dict[str, list[list[int]]] = {name: [] for name in live}
        order = random.Random(self._message["seed"])
        while live and not self._agent.cancelled():
            names = sorted(live)
            order.shuffle(names)
            for name in names:
                if self._agent.cancelled():
                    break
                blocks[name].append(self._block(name, live[name], len(blocks[name])))
                if self._finish(name, blocks[name]):
                    del live[name]
        self._sentinel()
        self._event(
            "job_done",
            wall_ns=sum(self._totals.values()),
            environment=_environment(),
            outcome="cancelled" if self._agent.cancelled() else "done",
            **self._totals,
        )

    def _load(self, item: Message, number: int) -> float | None:
        try:
            latency_ns = self._board.latency_ns(item["sha256"], item["path"], number)
        except _FailedError as failure:
            code, text = failure.reply["code"], failure.reply["message"]
            self._event("failed", item=item["item"], code=code, message=text)
            return None
        load_ns = int(2e6 + latency_ns)
        self._totals["load_ns"] += load_ns
        is_nan = "nan" in self._modes and number == 1
        output = None if is_nan else item["expected"] or [0.0]
        matches = None if item["expected"] is None else not is_nan
        if "mismatch" in self._modes and item["expected"] is not None:
            matches = False
        self._event(
            "loaded",
            item=item["item"],
            load_ns=load_ns,
            first_ns=int(2 * latency_ns),
            peak_memory_bytes=20 * 2**20 + int(latency_ns),
            runtime_memory_bytes=16 * 2**20,
            input_shapes={"input": [1, 3, 32, 32]},
            output=output,
            output_finite=not is_nan,
            output_matches=matches,
        )
        warmup_ns = int(self._settings["warmup_min_s"] * 1e9)
        self._totals["warmup_ns"] += warmup_ns
        runs = max(1, round(warmup_ns / latency_ns))
        self._event("warmed", item=item["item"], runs=runs, duration_ns=warmup_ns, converged=True)
        return latency_ns

    def _block(self, name: str, latency_ns: float, index: int) -> list[int]:
        settings = self._settings
        n_runs = max(
            settings["block_min_runs"], math.ceil(settings["block_min_s"] * 1e9 / latency_ns)
        )
        generator = random.Random(f"{self._board.seed}/{self._message['seed']}/{name}/{index}")
        base_ns = latency_ns * generator.gauss(1.0, 0.002)
        samples_ns = [
            max(1, int(base_ns * generator.gauss(1.0, 0.004)))
            for _ in range(min(n_runs, settings["block_max_runs"]))
        ]
        wall_ns = sum(samples_ns)
        self._totals["sentinel_ns" if name == "@sentinel" else "timed_ns"] += wall_ns
        share = 0.5 if "contended" in self._modes else 0.995
        self._event(
            "block",
            item=name,
            block=index,
            samples_ns=samples_ns,
            cpu_ns=int(wall_ns * share),
            wall_ns=wall_ns,
            nvcsw=0,
            nivcsw=0,
            t_ns=time.monotonic_ns(),
            freq_khz=1_000_000,
            temperature_c=40.0,
            steal_ns=0,
            throttle=0,
        )
        return samples_ns

    def _finish(self, name: str, blocks: list[list[int]]) -> bool:
        """Write "finished" when the stop rule says so."""
        settings = self._settings
        medians = [statistics.median(block) for block in blocks]
        timed_ns = sum(sum(block) for block in blocks)
        if len(blocks) < settings["min_blocks"] or timed_ns < settings["min_timed_s"] * 1e9:
            return False
        label = statistics.median(medians)
        spread = statistics.stdev(medians) if len(medians) > 1 else 0.0
        ci_rel = 1.96 * 1.25 * spread / math.sqrt(len(medians)) / label
        target = settings["ci_rel_target"]
        stop = None
        if len(blocks) >= settings["max_blocks"]:
            stop = "blocks"
        elif target > 0 and ci_rel <= target:
            stop = "precision"
        elif target > 0 and timed_ns >= settings["max_timed_s"] * 1e9:
            stop = "time"
        if stop is None:
            return False
        self._event(
            "finished",
            item=name,
            n_blocks=len(blocks),
            ci_rel=ci_rel,
            stop=stop,
            warmup_ns=int(settings["warmup_min_s"] * 1e9),
            timed_ns=timed_ns,
            energy={"reason": "no_sensor"},
        )
        return True

    def _sentinel(self) -> None:
        sentinel = self._message["sentinel"]
        if sentinel is None:
            return
        try:
            latency_ns = self._board.latency_ns(sentinel["sha256"], sentinel["path"])
        except _FailedError as failure:
            code, text = failure.reply["code"], failure.reply["message"]
            self._event("failed", item="@sentinel", code=code, message=text)
            return
        if "drift" in self._modes:
            latency_ns *= 1.0 + 0.2 * self._n_sentinel
        self._block("@sentinel", latency_ns, self._n_sentinel)
        self._n_sentinel += 1

    def _event(self, kind: str, **fields: Any) -> None:
        """Journal one event, misbehave if that is due, write it."""
        self._seq += 1
        message = {"type": "event", "seq": self._seq, "job": self._message["job"], "event": kind}
        line = json.dumps({**message, **fields}) + "\n"
        with self._board.journal(self._message["job"]).open("a", encoding="utf-8") as stream:
            stream.write(line)
        self._board.n_events += 1
        if "slow" in self._modes:
            self._agent.pause(self._board.delay_s)
        self._misbehave(line)
        self._agent.write_raw(line)

    def _misbehave(self, line: str) -> None:
        board, modes = self._board, self._modes
        if "die_after" in modes and board.n_events > modes.get("die_after", 0):
            sys.stderr.write("fake: told to die\n")
            sys.stderr.flush()
            os._exit(9)
        if "die_once" in modes and board.n_events > modes.get("die_once", 0):
            marker = board.work / "died_once"
            if not marker.exists():
                marker.touch()
                os._exit(9)
        if modes.get("hold", 0) == self._seq:
            for _ in range(6000):  # bounded: a test that fails must not leave a process behind
                if (board.work / "go").exists() or self._agent.cancelled():
                    break
                time.sleep(0.01)
        if self._seq != 3:
            return
        if "garbage" in modes:
            self._agent.write_raw("Segmentation fault (core dumped)\n")
        if "half_json" in modes:
            self._agent.write_raw(line[: len(line) // 2] + "\n")
        if "half_json_eof" in modes:
            self._agent.write_raw(line[: len(line) // 2])
            os._exit(0)
        if "event_order" in modes:
            self._seq += 1


def _environment() -> Message:
    return {
        "governor": "performance",
        "freq_khz": [1_000_000],
        "freq_max_khz": 1_000_000,
        "boost": False,
        "temperature_c": 40.0,
        "load1": 0.0,
    }


def _read_journal(path: Path) -> Iterator[Message]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return  # cut short by a crash


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.02)
    parser.add_argument("--host-timeout", type=float, default=0.0, help="taken note of only")
    options = parser.parse_args()
    modes = _modes_of(options.mode)
    board = _Board(options.work, modes, seed=options.seed, delay_s=options.delay_s)
    return _FakeAgent(board).serve()


if __name__ == "__main__":
    sys.exit(main())
