"""What `hwnas doctor` asks of a board: does it answer, what can it run, does it know its power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwnas_sdk.cli.checks import Check
from hwnas_sdk.cli.context import App
from hwnas_sdk.core.errors import HwnasError
from hwnas_sdk.devices.session import DeviceSession

EXIT_BOARD = 4


def check_board(app: App, name: str) -> Iterator[Check]:
    """Findings about the board `name`; one that does not answer gives a single finding."""
    label = f"board {name}"
    try:
        session = app.session(name)
        found = session.probe()
    except HwnasError as exc:
        yield Check(name=label, ok=False, detail=exc.message, fix=exc.hint, exit_code=EXIT_BOARD)
        return
    spec = session.spec
    yield Check(
        name=label,
        ok=True,
        detail=f"{spec.family}: {spec.soc}, {spec.cores} cores, {spec.memory_mib} MiB, "
        f"{spec.machine}",
        exit_code=EXIT_BOARD,
    )
    yield from _check_runtimes(f"{label} runtime", session, found)
    if session.needs_artifacts:
        yield _check_power(f"{label} power", session, found)
        yield _check_quiet(f"{label} quiet", found)


def _check_runtimes(
    label: str, session: DeviceSession, found: Mapping[str, Any]
) -> Iterator[Check]:
    if not session.needs_artifacts:  # a table runs nothing
        return
    broken = [
        f"{name}: {entry['error'].get('message', entry['error'].get('code'))}"
        for name, entry in (found.get("runtimes") or {}).items()
        if isinstance(entry, Mapping) and entry.get("error")
    ]
    ok = bool(session.spec.runtimes)
    working = [f"{name} {version}" for name, version in session.spec.runtimes.items()]
    yield Check(
        name=label,
        ok=ok,
        detail="; ".join(working + broken) or "none found",
        fix="" if ok else "on the board: python3 -m pip install onnxruntime numpy",
        exit_code=EXIT_BOARD,
    )


def _check_power(label: str, session: DeviceSession, found: Mapping[str, Any]) -> Check:
    power = found.get("power") or {}
    source = session.spec.power_source
    texts = [session.spec.power_reason, power.get("detail")]
    detail = str(source) if source else ": ".join(str(text) for text in texts if text)
    return Check(
        name=label,
        ok=source is not None,
        detail=detail or "no sensor",
        fix="" if source else str(power.get("hint") or ""),
    )


def _check_quiet(label: str, found: Mapping[str, Any]) -> Check:
    quiet = found.get("quiet") or {}
    denied = [key for key, value in quiet.items() if value is False]
    return Check(
        name=label,
        ok=not denied,
        detail=f"cannot set {', '.join(denied)}; measurements are flagged" if denied else "ready",
        fix="see the findings about this machine, or run as a user who may" if denied else "",
    )
