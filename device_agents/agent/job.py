"""One job on the supervisor's side: its events, numbered, journalled, then sent."""

from __future__ import annotations

import time
from typing import Any, Callable

from device_agents.agent import journal, protocol
from device_agents.agent.protocol import SENTINEL, RequestError, field

KILL_GRACE_S = 2.0
"""The worker ends by itself at the deadline, between two inferences; after this it is killed."""

_DURABLE = ("finished", "failed", "job_done")
_SETTINGS = {
    "warmup_min_s": 0.2,
    "warmup_min_runs": 10,
    "warmup_max_s": 5.0,
    "warmup_group_runs": 10,
    "warmup_rel_tol": 0.02,
    "block_min_s": 0.1,
    "block_min_runs": 10,
    "block_max_runs": 2000,
    "min_blocks": 5,
    "max_blocks": 20,
    "min_timed_s": 0.0,
    "max_timed_s": 2.0,
    "ci_rel_target": 0.03,
    "sentinel_max_gap_s": 60.0,
    "energy": False,
}  # type: dict[str, Any]
"""What the agent reads of a MeasureSettings object; the defaults serve requests by hand."""
_OPTIONS = {
    "runtime": "ort",
    "threads": 1,
    "affinity": None,
    "nice": None,
    "providers": None,
    "governor": None,
    "max_start_temperature_c": None,
    "start_wait_s": 120.0,
}  # type: dict[str, Any]


class Job:
    """A running job.

    Attributes:
        name: the host's name for it.
        request: the checked request.
        at: the item the worker is busy with, None when no item is to blame.
        open_items: names of items neither finished nor failed.
        prepared: what was changed on the board for it, for "job_started".
        broken: (code, message) when the journal cannot be written any more.
        kill_at_s: when the worker is killed, on the monotonic clock.
    """

    def __init__(self, message: dict[str, Any], send: Callable[[bytes], None]) -> None:
        """Check the request. Raises: RequestError."""
        self.name = protocol.job_name(message)
        self.request = _checked(message)
        self._send = send
        self._journal = None  # type: journal.Journal | None
        self._tally = journal.Tally()
        self._begin_ns = time.monotonic_ns()
        self._deadline_ns = self._begin_ns + int(self.request["deadline_s"] * 1e9)
        self.kill_at_s = self._deadline_ns / 1e9 + KILL_GRACE_S
        self.at = None  # type: str | None
        self.broken = None  # type: tuple[str, str] | None
        self.prepared = {}  # type: dict[str, Any]

    @property
    def runtime(self) -> str:
        """Name of the runtime it asks for."""
        return str(self.request["options"]["runtime"])

    @property
    def hashes(self) -> set[str]:
        """SHA-256 of every file it needs."""
        files = [*self.request["items"], self.request["sentinel"]]
        return {entry["sha256"] for entry in files if entry is not None}

    @property
    def open_items(self) -> list[str]:
        """Items that are neither finished nor failed, in the request's order."""
        names = [item["item"] for item in self.request["items"]]
        return [name for name in names if name not in self._tally.over]

    def open_journal(self, work: str) -> None:
        """Create the journal. Raises: FileExistsError, OSError."""
        self._journal = journal.Journal(journal.path_of(work, self.name), create=True)

    def for_worker(self) -> dict[str, Any]:
        """What a worker needs to run the open items; a crashed worker's blocks count."""
        items = [item for item in self.request["items"] if item["item"] not in self._tally.over]
        sentinel = None if SENTINEL in self._tally.over else self.request["sentinel"]
        return {
            **self.request,
            "items": items,
            "sentinel": sentinel,
            "deadline_ns": self._deadline_ns,
            "resume": self._tally.resume(),
            "prepared": self.prepared,
        }

    def event(self, fields: dict[str, Any]) -> None:
        """Number, journal and send one event."""
        if fields["event"] == "job_started" and self._tally.started:
            return  # from the worker that took over after a crash
        head = {
            "type": "event",
            "seq": self._tally.last_seq + 1,
            "job": self.name,
            "t_ns": time.monotonic_ns(),
        }
        message = {**head, **fields}
        line = protocol.encode(message)
        if self.broken is None and self._journal is not None:
            try:
                self._journal.append(line, durable=fields["event"] in _DURABLE)
            except OSError as exc:
                code = "no_space" if protocol.is_full(exc) else "work_dir"
                self.broken = (code, "the journal cannot be written: %s" % exc.strerror)
        self._tally.add(message)
        self._send(line)

    def fail(self, item: str, code: str, message: str) -> None:
        """Say why an item has no result."""
        self.event({"event": "failed", "item": item, "code": code, "message": message})

    def end(
        self,
        outcome: str,
        code: str | None,
        message: str,
        environment: dict[str, Any],
        throttle: dict[str, Any] | None,
    ) -> None:
        """Fail what is open (given a `code`), write the last event, close the journal."""
        if code is not None:
            for item in self.open_items:
                self.fail(item, code, message)
        wall_ns = time.monotonic_ns() - self._begin_ns
        self.event(
            {
                "event": "job_done",
                **self._tally.totals_ns,
                "wall_ns": wall_ns,
                "environment": environment,
                "throttle": throttle,
                "outcome": outcome,
            }
        )
        if self._journal is not None:
            self._journal.close()


def _checked(message: dict[str, Any]) -> dict[str, Any]:
    """The parts of a "measure" request, each of the right type. Raises: RequestError."""
    settings = {**_SETTINGS, **field(message, "settings", dict)}
    for name, default in _SETTINGS.items():
        kinds = (int, float) if isinstance(default, float) else type(default)
        field({"type": "measure settings", name: settings[name]}, name, kinds)
    items = [_item(entry, named=True) for entry in field(message, "items", list)]
    names = [item["item"] for item in items]
    if not items or len(set(names)) != len(names) or SENTINEL in names:
        raise RequestError("bad_request", "items: need distinct names, none of them @sentinel")
    sentinel = message.get("sentinel")
    seed, deadline_s = message.get("seed", 0), field(message, "deadline_s", (int, float))
    return {
        "options": _options(field(message, "options", dict)),
        "settings": settings,
        "items": items,
        "sentinel": None if sentinel is None else _item(sentinel, named=False),
        "seed": seed if isinstance(seed, int) else 0,
        "deadline_s": float(deadline_s),
    }


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """How to measure, with defaults. Raises: RequestError."""
    options = {**_OPTIONS, **{name: given[name] for name in _OPTIONS if name in given}}
    affinity = options["affinity"]
    checks = {
        "runtime": (_is(options["runtime"], str), "a name"),
        "threads": (_is(options["threads"], int) and options["threads"] >= 1, "a number from 1"),
        "affinity": (
            affinity is None or affinity == "auto" or _is_list(affinity, int),
            "'auto', a list of cores or null",
        ),
        "nice": (options["nice"] is None or _is(options["nice"], int), "a number or null"),
        "providers": (
            options["providers"] is None or _is_list(options["providers"], str),
            "a list of names or null",
        ),
        "governor": (options["governor"] in (None, "performance"), "'performance' or null"),
    }
    for name in ("max_start_temperature_c", "start_wait_s"):
        value = options[name]
        checks[name] = (value is None or _is(value, (int, float)), "a number or null")
    for name, (is_good, wanted) in checks.items():
        if not is_good:
            raise RequestError("bad_request", "options: %s is %s" % (name, wanted))
    return options


def _is(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_list(value: Any, kinds: Any) -> bool:
    return isinstance(value, list) and all(_is(entry, kinds) for entry in value)


def _item(entry: Any, *, named: bool) -> dict[str, Any]:
    """One network of a request. Raises: RequestError; its path must stay in the work folder."""
    if not isinstance(entry, dict):
        raise RequestError("bad_request", "items: each is an object")
    whole = {"type": "measure item", **entry}
    path = field(whole, "path", str)
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise RequestError("bad_request", "path: must be inside the work folder: %r" % path)
    item = {
        "sha256": field(whole, "sha256", str),
        "path": path,
        "expected": entry.get("expected"),
        "input_seed": entry.get("input_seed", 0),
        "inputs": entry.get("inputs"),
        "tuned": entry.get("tuned"),
    }
    if named:
        item["item"] = field(whole, "item", str)
    expected, seed = item["expected"], item["input_seed"]
    numbers = isinstance(expected, list) and all(isinstance(v, (int, float)) for v in expected)
    if not _are_inputs(item["inputs"]) or not isinstance(item["tuned"], (bool, type(None))):
        raise RequestError("bad_request", "item %r: bad inputs or tuned" % path)
    if not (expected is None or numbers) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise RequestError("bad_request", "item %r: bad expected or input_seed" % path)
    return item


def _are_inputs(inputs: Any) -> bool:
    """Whether `inputs` is null or a list of [name, shape, dtype]."""
    return inputs is None or (
        isinstance(inputs, list)
        and all(
            isinstance(entry, list)
            and len(entry) == 3
            and isinstance(entry[0], str)
            and _is_list(entry[1], int)
            and isinstance(entry[2], str)
            for entry in inputs
        )
    )
