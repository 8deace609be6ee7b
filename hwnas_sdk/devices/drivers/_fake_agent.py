"""A process that speaks the agent's protocol without a runtime, and misbehaves on command.

Run as ``python _fake_agent.py --work DIR [--mode MODE[,MODE...]] [--seed N] [--delay-s X]``.
Latencies are made up from the artifact's size and hash, so they are the same in every run; nothing
waits for them (a job takes as long as writing its lines) unless the mode is ``slow``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

# Run by path, not as a module of the package: importing that would take longer than all it does.
if TYPE_CHECKING:
    from hwnas_sdk.devices.drivers._fake_board import (
        Board,
        FailedError,
        Message,
        environment,
        modes_of,
        read_journal,
    )
    from hwnas_sdk.devices.drivers._fake_job import FakeJob
else:
    from _fake_board import Board, FailedError, environment, modes_of, read_journal
    from _fake_job import FakeJob

_VERSION = "fake-1"


class _FakeAgent:
    """Answers requests on stdin; one job at a time runs in a thread beside it."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._modes = board.modes
        self._write_lock = threading.Lock()
        self._cancelled = threading.Event()
        self._job: threading.Thread | None = None
        self._heard_s = time.monotonic()

    def serve(self) -> int:
        """Read requests until the host says goodbye or is gone."""
        for line in sys.stdin:
            self._heard_s = time.monotonic()
            message = json.loads(line)
            reply_to = message.get("id")
            handler = getattr(self, f"_on_{message.get('type')}", self._on_unknown)
            try:
                reply = handler(message)
            except FailedError as failure:
                reply = failure.reply
            if reply is None:
                continue
            self.write({**reply, "re": reply_to})
            if reply["type"] == "accepted":
                self._start(message)
            if reply["type"] == "bye":
                break
        self._leave()
        return 0

    def watch_host(self, timeout_s: float) -> None:
        """Leave as at the end of input when the host says nothing for `timeout_s`."""
        while time.monotonic() - self._heard_s < timeout_s:
            time.sleep(timeout_s / 10.0)
        self._leave()
        os._exit(0)

    def _leave(self) -> None:
        """Finish the job, give the board back."""
        if self._job is not None:
            self._job.join()
        self._board.release()

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
        raise FailedError("bad_request", f"unknown type {message.get('type')!r}")

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

    @staticmethod
    def _on_ping(message: Message) -> Message:
        del message
        return {"type": "pong"}

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
            "environment": environment(),
            "runtimes": {"ort": {"version": "0.0-fake", "providers": ["CPUExecutionProvider"]}},
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
        self._check_lease(message)
        if self._modes.pop("lease_lost", 0):
            raise FailedError("lease_lost", "measure needs the lease")
        if "hang" in self._modes:
            return None
        if "out_of_order" in self._modes:
            self.write({"type": "accepted", "re": message["id"] + 1000, "job": message["job"]})
            return None
        return {"type": "accepted", "job": message["job"]}

    def _on_fetch(self, message: Message) -> Message | None:
        if "hang" in self._modes:
            return None
        events = list(read_journal(self._board.journal(message["job"])))
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

    def _on_clean(self, message: Message) -> Message:
        self._check_lease(message)
        files, size = self._board.clean(message.get("keep"), journals=bool(message.get("journals")))
        return {"type": "cleaned", "files": files, "bytes": size}

    @staticmethod
    def _on_bye(message: Message) -> Message:
        del message
        return {"type": "bye"}

    @staticmethod
    def _check_lease(message: Message) -> None:
        if message["lease"] != f"lease-{os.getpid()}":
            raise FailedError("lease_lost", f"{message['type']} needs the lease")

    # --- jobs ---------------------------------------------------------------------------------

    def _start(self, message: Message) -> None:
        self._cancelled.clear()
        self._job = threading.Thread(target=FakeJob(self, self._board, message).run)
        self._job.start()

    def pause(self, duration_s: float) -> None:
        """Wait, but not once the job was cancelled."""
        self._cancelled.wait(duration_s)

    def cancelled(self) -> bool:
        """Whether the running job should end."""
        return self._cancelled.is_set()


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.02)
    parser.add_argument("--host-timeout", type=float)
    parser.add_argument("--lease-dir", help="not used: a work folder is a board")
    options = parser.parse_args()
    modes = modes_of(options.mode)
    board = Board(options.work, modes, seed=options.seed, delay_s=options.delay_s)
    agent = _FakeAgent(board)
    if options.host_timeout is not None:
        watch = threading.Thread(target=agent.watch_host, args=(options.host_timeout,), daemon=True)
        watch.start()
    return agent.serve()


if __name__ == "__main__":
    sys.exit(main())
