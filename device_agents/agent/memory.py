"""Peak memory of one network alone: a forked child loads it, runs it once and reports.

The children are forked from a process that has imported the runtime and loaded nothing (the
"zygote", itself forked from the worker before its first job), so they do not share the pages
of other networks, and a network that crashes the runtime takes only its own child with it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
import traceback
import warnings
from contextlib import suppress
from typing import Any

from device_agents.agent import process

PROBE_TIMEOUT_S = 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_FAULT_AROUND = 16
"""Pages the kernel maps at once around a file page that is touched (fault_around_bytes)."""


def status_kib(key: str) -> int:
    """An entry of /proc/self/status in KiB."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        found = re.search(r"^%s:\s+(\d+)" % key, stream.read(), re.MULTILINE)
    if found is None:
        raise OSError("no %s in /proc/self/status" % key)
    return int(found.group(1))


def resident_file_pages() -> list[int]:
    """Addresses of file pages (code, constants) in memory, one per fault-around window.

    A fork does not copy the page tables of file mappings: without touching these again a child
    would look smaller than a process that imported the runtime itself, by a quarter.
    """
    first = {}  # type: dict[tuple[int, int], int]
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        lines = maps.readlines()
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in lines:
            fields = line.split(None, 5)
            if len(fields) < 6 or not fields[5].startswith("/") or fields[1][0] != "r":
                continue
            begin, end = (int(part, 16) for part in fields[0].split("-"))
            pagemap.seek(begin // _PAGE * 8)
            # The topmost bit of each page's eight bytes says that it is present.
            flags = pagemap.read((end - begin) // _PAGE * 8)[7::8]
            for index, flag in enumerate(flags):
                if flag & 0x80:
                    page = begin // _PAGE + index
                    first.setdefault((page // _FAULT_AROUND, begin), page * _PAGE)
    return sorted(first.values())


def _touch(addresses: list[int]) -> None:
    import ctypes

    for address in addresses:
        ctypes.string_at(address, 1)


class Zygote:
    """The process that forks the children. Create it after `describe` and `prime` of the runtime.

    One request at a time: `request`, then `result`.
    """

    def __init__(self, runtime: Any) -> None:
        ask_read, self._ask = os.pipe()
        self._answer, answer_write = os.pipe()
        parent = os.getpid()
        try:
            pages = resident_file_pages()
        except OSError:
            pages = []  # no pagemap here: children will look smaller by the shared code
        with warnings.catch_warnings():
            # The runtime's logging thread is idle; children never use it.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                process.die_with_parent(parent)
                _leave_pipes(keep=(ask_read, answer_write))
                _serve(ask_read, answer_write, pages, runtime)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(ask_read)
        os.close(answer_write)
        self.pid = pid
        self._number = 0

    def settle(self, cores: list[int], nice: int) -> None:
        """Let the children run on `cores` with the worker's priority."""
        with suppress(OSError):  # it ended (`result` says so), or this is not allowed anyway
            os.sched_setaffinity(self.pid, cores)
            os.setpriority(os.PRIO_PROCESS, self.pid, nice)

    def request(self, **fields: Any) -> None:
        """Start measuring; `fields` are the arguments of a session beside the file's bytes."""
        self._number += 1
        with suppress(OSError):  # `result` finds the pipe closed
            line = json.dumps({**fields, "number": self._number})
            os.write(self._ask, line.encode("ascii") + b"\n")

    def result(self) -> dict[str, Any]:
        """Wait for {peak, base} in bytes, {"signal": n} of a crash, or {"reason": text}.

        Answers to requests nobody waited for (a job reached its deadline) are passed over.
        """
        end_s = time.monotonic() + PROBE_TIMEOUT_S + 5.0
        while True:
            line = _read_line(self._answer, end_s - time.monotonic())
            if not line:
                return {"reason": "the memory probe does not answer"}
            reply = json.loads(line.decode("ascii"))
            if reply.pop("number") == self._number:
                return dict(reply)


def _leave_pipes(keep: tuple[int, int]) -> None:
    """Let go of the worker's own pipes, so that its end is noticed at their other side."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            try:
                if os.readlink("/proc/self/fd/" + name).startswith("pipe:"):
                    os.close(descriptor)
            except OSError:
                continue  # the one the listing itself used


def _serve(ask: int, answer: int, pages: list[int], runtime: Any) -> None:
    with os.fdopen(ask, "rb") as requests:
        for line in requests:
            _measure(json.loads(line.decode("ascii")), pages, runtime, answer)


def _measure(request: dict[str, Any], pages: list[int], runtime: Any, answer: int) -> None:
    """Fork a child for one request; the answer goes out before its memory is given back."""
    number = request.pop("number")
    read_end, write_end = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            process.die_with_parent(parent)
            os.close(read_end)
            reply = {**_load_and_run(request, pages, runtime), "number": number}
            os.write(write_end, json.dumps(reply).encode("ascii") + b"\n")
        finally:
            os._exit(0)
    os.close(write_end)
    line = _read_line(read_end, PROBE_TIMEOUT_S)
    os.close(read_end)
    if line:
        os.write(answer, line)
        os.waitpid(pid, 0)
        return
    if line is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if line is None:
        reply = {"reason": "the memory probe took more than %.0f s" % PROBE_TIMEOUT_S}  # type: dict[str, Any]
    elif os.WIFSIGNALED(status):
        reply = {"signal": os.WTERMSIG(status)}
    else:
        reply = {"reason": "the memory probe ended without an answer"}
    reply["number"] = number
    os.write(answer, json.dumps(reply).encode("ascii") + b"\n")


def _load_and_run(request: dict[str, Any], pages: list[int], runtime: Any) -> dict[str, Any]:
    try:
        _touch(pages)
        base_kib = status_kib("VmRSS")
        with open(request["path"], "rb") as stream:
            data = stream.read()
        runtime.Session(data, **request).run()
        return {"peak": status_kib("VmHWM") * 1024, "base": base_kib * 1024}
    except Exception as exc:
        return {"reason": "%s: %s" % runtime.failure_of(exc)}


def _read_line(descriptor: int, timeout_s: float) -> bytes | None:
    """Return one line, b"" at the end of the pipe, None when it does not come in time."""
    line = b""
    end_s = time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        part = os.read(descriptor, 1)  # answers are short; a second one must stay in the pipe
        if not part:
            return b""
        line += part
    return line
