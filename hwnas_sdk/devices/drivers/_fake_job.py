"""A job of the fake agent: made-up blocks, and the faults that are asked for."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

# Run by path, not as a module of the package: importing that would take longer than all it does.
if TYPE_CHECKING:
    from hwnas_sdk.devices.drivers._fake_board import Board, FailedError, Message, environment
else:
    from _fake_board import FailedError, environment


class Host(Protocol):
    """What a job needs of the agent it runs in."""

    def pause(self, duration_s: float) -> None:
        """Wait, but not once the job was cancelled."""

    def cancelled(self) -> bool:
        """Whether the job should end."""

    def write_raw(self, text: str) -> None:
        """Write any text to the host."""


class FakeJob:
    """One job: made-up blocks in the order a real board would take them."""

    def __init__(self, agent: Host, board: Board, message: Message) -> None:
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
            "providers": ["CPUExecutionProvider"],
            "runtime": options.get("runtime"),
            "runtime_version": "0.0-fake",
            "governor": {
                "before": "ondemand",
                "set": options.get("governor"),
                "restored_by": "agent",
                "reason": None if options.get("governor") else "not asked",
            },
            "tuned": None,
        }
        self._event(
            "job_started",
            environment=environment(),
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
            environment=environment(),
            throttle=None,
            outcome="cancelled" if self._agent.cancelled() else "done",
            **self._totals,
        )

    def _load(self, item: Message, number: int) -> float | None:
        try:
            latency_ns = self._board.latency_ns(item["sha256"], item["path"], number)
        except FailedError as failure:
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
        except FailedError as failure:
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
