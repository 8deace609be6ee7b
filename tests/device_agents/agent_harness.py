"""Drives the real zipapp as a process, with real networks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SETTINGS: dict[str, Any] = {
    "warmup_min_s": 0.0,
    "warmup_min_runs": 3,
    "warmup_max_s": 0.5,
    "warmup_group_runs": 3,
    "warmup_rel_tol": 0.5,
    "block_min_s": 0.002,
    "block_min_runs": 5,
    "block_max_runs": 50,
    "min_blocks": 3,
    "max_blocks": 3,
    "ci_rel_target": 0.0,
    "sentinel_max_gap_s": 60.0,
    "energy": False,
}
FOREVER = {**SETTINGS, "max_blocks": 1_000_000, "block_min_s": 0.02, "block_max_runs": 2000}


def conv_net(channels: int, size: int = 16, *, seed: int = 0, dynamic: bool = False) -> bytes:
    """Two convolutions; more channels take longer."""
    random = np.random.default_rng(seed)
    first = random.normal(size=(channels, 3, 3, 3)).astype(np.float32)
    second = random.normal(size=(channels, channels, 3, 3)).astype(np.float32) / channels
    batch = "N" if dynamic else 1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w1"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["output"], pads=[1, 1, 1, 1]),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, channels, size, size])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Agent:
    """A running agent and the host's side of its pipes."""

    def __init__(
        self,
        pyz: Path,
        work: Path,
        *arguments: str,
        python: str = sys.executable,
        file_limit_bytes: int | None = None,
        user: int | None = None,
    ):
        self.work = work
        if user is None:
            (work / "artifacts").mkdir(parents=True, exist_ok=True)
        self.errors = (work / f"stderr-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(
            [python, str(pyz), "--work", str(work), *arguments],
            env={**os.environ, "HWNAS_LEASE_DIR": str(work)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
            user=user,
        )
        if file_limit_bytes is not None:
            self.limit_files(file_limit_bytes)
        self.events: list[dict[str, Any]] = []
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next_id = 0
        self._deaf = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.lease = ""

    def limit_files(self, size_bytes: int) -> None:
        """Let no file of the agent grow beyond `size_bytes`: as good as a full disk."""
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(word) for word in text.split()]

    def worker_pid(self) -> int:
        """The measuring process (the guardian is a child too)."""
        for pid in self.children():
            if b"--worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError("no worker")

    @property
    def lease_file(self) -> Path:
        return self.work / "hwnas-agent.lease"

    def lease_record(self) -> dict[str, Any]:
        return dict(json.loads(self.lease_file.read_text(encoding="ascii")))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, kind: str, **fields: Any) -> int:
        self._next_id += 1
        self.write(json.dumps({"id": self._next_id, "type": kind, **fields}).encode() + b"\n")
        return self._next_id

    def receive(self, timeout_s: float = 60.0) -> dict[str, Any]:
        message = self._messages.get(timeout=timeout_s)
        assert message is not None, f"the agent ended: {self.stderr()}"
        if message["type"] == "event":
            self.events.append(message)
        return message

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        number = self.send(kind, **fields)
        while True:
            message = self.receive()
            if message["type"] != "event":
                assert message["re"] == number
                return message

    def take_lease(self) -> str:
        self.lease = self.ask("lease", owner="tests", ttl_s=60.0)["lease"]
        return self.lease

    def put(self, data: bytes) -> dict[str, Any]:
        sha = hashlib.sha256(data).hexdigest()
        path = f"artifacts/{sha}.onnx"
        (self.work / path).write_bytes(data)
        return {"sha256": sha, "path": path}

    def request(self, job: str, items: list[dict[str, Any]], /, **changes: Any) -> dict[str, Any]:
        return {
            "lease": self.lease,
            "job": job,
            "options": {"runtime": "ort", "threads": 1, "affinity": "auto", "nice": -20},
            "settings": SETTINGS,
            "items": [{"item": f"n{i}", "input_seed": i, **item} for i, item in enumerate(items)],
            "sentinel": None,
            "seed": 1,
            "deadline_s": 60.0,
            **changes,
        }

    def measure(self, job: str, items: list[dict[str, Any]], /, **changes: Any) -> dict[str, Any]:
        return self.ask("measure", **self.request(job, items, **changes))

    def follow(self, job: str, until: Callable[[dict[str, Any]], bool] | None = None) -> list[Any]:
        """Read up to the job's end (or the first event that `until` accepts); its events so far."""
        stop = until or (lambda event: event["event"] == "job_done")
        while not any(e["job"] == job and stop(e) for e in self.events):
            self.receive()
        return [event for event in self.events if event["job"] == job]

    def run(self, job: str, items: list[dict[str, Any]], /, **changes: Any) -> list[dict[str, Any]]:
        reply = self.measure(job, items, **changes)
        assert reply["type"] == "accepted", reply
        return self.follow(job)

    def fetch(self, job: str, since: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        self.events.clear()
        reply = self.ask("fetch", job=job, since=since)
        return list(self.events), reply

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def stderr(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.close_input()
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5.0)
        self._close_stdout()
        self.errors.close()

    def close_output(self) -> None:
        """Let go of the pipe the agent writes to, as a link that breaks does."""
        self._deaf.set()
        self._reader.join(10.0)
        self._close_stdout()

    def _close_stdout(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._messages.put(json.loads(line))
            if self._deaf.is_set():
                return
        self._messages.put(None)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def of(events: list[dict[str, Any]], kind: str, item: str | None = None) -> list[dict[str, Any]]:
    return [e for e in events if e["event"] == kind and item in {None, e.get("item")}]


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for yet counts as ended)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}
