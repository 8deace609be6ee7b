"""The board's half of a setup: wheels go there in one stream, the installer runs beside them."""

from __future__ import annotations

import contextlib
import json
import shlex
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event, EventSink
from hwnas_sdk.devices import _board_install
from hwnas_sdk.devices.board_facts import PythonFacts
from hwnas_sdk.devices.transports.shell import BoardShell
from hwnas_sdk.devices.wheels import Wheel

INSTALL_S: Final = 900.0
"""After this long the board itself ends an installation."""

_PUSH_S: Final = 1800.0
_CHUNK: Final = 1 << 18
_HINTS: Final[Mapping[str, str]] = {
    "runtime_crashed": "some builds crash on some processors (onnxruntime issues 23957, 24512); "
    "another version may work: --pin onnxruntime==VERSION",
    "runtime_missing": "the wheels do not fit the board; another Python may: --python PATH",
    "no_space": "free some space on the board",
    "board_busy": "try again when it has ended",
    "deploy_failed": "run the same command again",
    "setup_failed": "-v shows what the board said",
    "deadline": "is the board overloaded? Run the same command again",
}


def push_and_install(
    shell: BoardShell,
    *,
    work: str,
    python: PythonFacts,
    wheels: Sequence[Wheel],
    request: Mapping[str, Any],
    on_event: EventSink,
) -> Mapping[str, Any]:
    """Send `wheels` and install them; returns the description of the finished environment.

    Args:
        shell: a connection.
        work: our folder on the board, absolute.
        python: the interpreter that installs.
        wheels: what to send.
        request: for the installer, without what is known here.
        on_event: hears of the bytes sent; its task is ``push wheels to NAME``.

    Raises: DeviceError, see `set_up`. What was sent is removed in any case, now or by the next
    setup.
    """
    place = f"{work}/setup.{uuid.uuid4().hex[:12]}"
    full_request = {
        **request,
        "work": work,
        "base": python.executable,
        "wheels": {wheel.path.name: wheel.sha256 for wheel in wheels},
        "deadline_s": INSTALL_S,
    }
    try:
        _push(shell, place, wheels, on_event)
        return _run_install(shell, place, python, full_request)
    except BaseException:
        with contextlib.suppress(DeviceError):
            shell.run(f"rm -rf {shlex.quote(place)}", timeout_s=20.0)
        raise


def _push(shell: BoardShell, place: str, wheels: Sequence[Wheel], on_event: EventSink) -> None:
    files = [(Path(_board_install.__file__), "install.py")]
    files += [(wheel.path, wheel.path.name) for wheel in wheels]
    quoted = shlex.quote(place)
    done = shell.run(
        f"mkdir -p {quoted} && cd {quoted} && tar -xf -",
        stdin=_stream(files, f"push wheels to {shell.device_id}", on_event),
        timeout_s=_PUSH_S,
    )
    if done.status != 0:
        full = "no space" in done.error_line.lower()
        raise DeviceError(
            f"wheels cannot be put on {shell.device_id!r}: {done.error_line}",
            device_id=shell.device_id,
            code="no_space" if full else "deploy_failed",
            hint="free some space on the board"
            if full
            else "the folder must be writable there; ?work=DIR in the URI chooses another",
        )


def _stream(files: Sequence[tuple[Path, str]], task: str, on_event: EventSink) -> Iterator[bytes]:
    """Yield the files as a tar stream."""
    total = sum(path.stat().st_size for path, _ in files)
    sent = 0
    for path, name in files:
        header = tarfile.TarInfo(name)
        header.size = path.stat().st_size
        yield header.tobuf(format=tarfile.GNU_FORMAT)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
                sent += len(chunk)
                mib = [-(-size // 2**20) for size in (sent, total)]
                on_event(Event(task, done=mib[0], total=mib[1], message="MiB"))
        yield b"\0" * (-header.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _run_install(
    shell: BoardShell, place: str, python: PythonFacts, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    done = shell.run(
        f"exec {shlex.quote(python.executable)} {shlex.quote(place + '/install.py')}",
        stdin=json.dumps(request).encode(),
        timeout_s=INSTALL_S + 30.0,
    )
    try:
        answer = json.loads(done.text.splitlines()[-1])
        if answer.get("ok") is not None:
            return dict(answer["ok"])
        code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        code, message = "setup_failed", done.error_line
    raise DeviceError(
        f"setting up {shell.device_id!r} failed: {message}",
        device_id=shell.device_id,
        code=code,
        hint=_HINTS.get(code, ""),
        retryable=code in {"board_busy", "deadline"},
    )
