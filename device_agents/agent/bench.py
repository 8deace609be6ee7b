"""What outlives one job in the worker, and one network while it is measured."""

from __future__ import annotations

import sys
from typing import Any

from device_agents.agent import facts, quiet


class Bench:
    """What the worker keeps from job to job.

    Attributes:
        sentinels: loaded reference networks, by everything their session depends on.
        peaks: memory already measured, by the same kind of key.
        cores: the cores of the last job, kept unless it was contended: sampling how busy the
            others are takes as long as loading a network.
        contended: whether others worked on the cores of the last job.
        everywhere: the cores this process was given.
    """

    def __init__(self, runtime: Any, runtime_version: str, zygote: Any, root: str) -> None:
        self.runtime = runtime
        self.runtime_version = runtime_version
        self.zygote = zygote
        self.root = root
        self.cores = None  # type: list[int] | None
        self.contended = False
        self.everywhere = facts.allowed_cores()
        self.sentinels = {}  # type: dict[Any, Any]
        self.peaks = {}  # type: dict[Any, dict[str, Any]]

    def settle(
        self, options: dict[str, Any], threads: int, keep: list[int] | None
    ) -> dict[str, Any]:
        """Take cores and priority as the job's `options` say; returns what is in force.

        `keep` are the cores of a worker that crashed in this very job: its other blocks were
        measured there.
        """
        wanted = options["affinity"]
        cores = None
        if wanted == "auto" and keep is not None:
            cores = keep
        elif wanted == "auto":
            cores = self.cores
            if self.contended or cores is None or len(cores) != threads:
                quiet.pin(None, self.everywhere)
                cores = quiet.choose_cores(threads, self.root, cores)
        elif wanted:
            cores = list(wanted)
        self.cores = quiet.pin(cores, self.everywhere)
        nice = quiet.set_nice(options["nice"])
        if self.zygote is not None:
            others = [core for core in self.everywhere if core not in (self.cores or [])]
            self.zygote.settle(others or self.everywhere, nice)
        return {
            "runtime": self.runtime.NAME,
            "runtime_version": self.runtime_version,
            "threads": threads,
            "inter_threads": 1,
            "execution": "sequential",
            "graph_optimization": "all",
            "feed": "io_binding",
            "cores": self.cores,
            "nice": nice,
            "python": sys.version.split()[0],
        }


class Network:
    """One item of the job while it is being measured."""

    def __init__(self, item: dict[str, Any], earlier: dict[str, Any]) -> None:
        self.name = item["item"]
        self.spec = item
        # Blocks a worker that crashed had already delivered count.
        self.medians_ns = list(earlier.get("medians_ns", ()))  # type: list[float]
        self.timed_ns = earlier.get("timed_ns", 0)  # type: int
        self.data = b""
        self.session = None  # type: Any
        self.latency_ns = 0.0
        self.warmup_ns = 0
        self.stop = ""
        self.ci_rel = None  # type: float | None


def matches(output: list[float | None], expected: list[float] | None) -> bool | None:
    """Whether `output` equals the host's to 1e-3, small values to 1e-4 of the largest."""
    if expected is None:
        return None
    if len(output) != len(expected) or None in output:
        return False
    floor = 1e-4 * max([abs(value) for value in expected], default=0.0) + 1e-6
    return all(
        abs(got - value) <= 1e-3 * abs(value) + floor  # type: ignore[operator]
        for got, value in zip(output, expected)
    )
