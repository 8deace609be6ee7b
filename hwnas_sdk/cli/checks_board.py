"""What `hwnas doctor` asks of a board: does it answer, what can it run, does it know its power.

All waits are bounded by the transport: some seconds to connect, `Timeouts` for the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwnas_sdk.cli.checks import Check
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.devices_rows import entry_of
from hwnas_sdk.core.errors import HwnasError
from hwnas_sdk.devices.board_shell import has_shell
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.uri import DeviceUri

EXIT_BOARD = 4
LOW_DISK_MIB = 200
_LOCAL_RUNTIME = "python3 -m pip install onnxruntime numpy, for the interpreter of its URI"
HOT_C = 70.0

# Errors that say more than "does not answer": the part of a board they are about, and the fix.
_PARTS = {
    "host_key_unknown": ("host key", "hwnas devices trust {name}"),
    "host_key_changed": ("host key", ""),
    "auth_failed": ("login", ""),
    "python_missing": ("python", ""),
    "python_too_old": ("python", ""),
    "runner_missing": ("runner", ""),
    "runner_unusable": ("runner", ""),
    "deploy_failed": ("folder", ""),
    "no_space": ("disk", "hwnas devices clean {name}"),
}


def check_board(app: App, name: str) -> Iterator[Check]:
    """Findings about the board `name`; one that does not answer gives a single finding."""
    label = f"board {name}"
    try:
        _, uri = entry_of(app, name)
        session = app.session(name)
        found = session.probe()
    except HwnasError as exc:
        part, fix = _PARTS.get(exc.code, ("", ""))
        yield Check(
            name=f"{label} {part}".rstrip(),
            ok=False,
            detail=exc.message,
            fix=fix.format(name=name) or exc.hint,
            exit_code=EXIT_BOARD,
        )
        return
    spec = session.spec
    yield Check(
        name=label,
        ok=True,
        detail=f"{spec.family}: {spec.soc}, {spec.cores} cores, {spec.memory_mib} MiB, "
        f"{spec.machine}",
        exit_code=EXIT_BOARD,
    )
    is_remote = has_shell(uri)
    fix = f"hwnas devices setup {name}" if is_remote else _LOCAL_RUNTIME
    if is_remote:
        yield from _check_remote(label, uri, session)
    yield from _check_runtimes(f"{label} runtime", session, found, fix)
    if is_remote:
        yield from _check_conditions(label, name, found.get("environment") or {})
    if session.needs_artifacts:
        yield _check_power(f"{label} power", session, found)
        yield _check_quiet(f"{label} quiet", found)


def _check_remote(label: str, uri: DeviceUri, session: DeviceSession) -> Iterator[Check]:
    """Who it is and what runs our agent there."""
    if uri.scheme == "ssh":
        from hwnas_sdk.devices.known_hosts import host_of, trusted

        keys = ", ".join(f"{key.kind} {key.fingerprint}" for key in trusted(host_of(uri)))
        yield Check(name=f"{label} host key", ok=True, detail=keys or "trusted")
    python = session.spec.details.get("python")
    if python:
        yield Check(name=f"{label} python", ok=True, detail=str(python))


def _check_conditions(label: str, name: str, environment: Mapping[str, Any]) -> Iterator[Check]:
    """Governor, temperature and disk: what disturbs or stops a measurement there."""
    governor = environment.get("governor")
    ok = governor in {None, "performance"}
    yield Check(
        name=f"{label} governor",
        ok=ok,
        detail=str(governor) if governor else "not visible",
        fix=""
        if ok
        else "set for each job where allowed; else on the board, as root: "
        "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )
    temperature_c = environment.get("temperature_c")
    ok = temperature_c is None or temperature_c < HOT_C
    yield Check(
        name=f"{label} temperature",
        ok=ok,
        detail="no sensor" if temperature_c is None else f"{temperature_c:.0f} C",
        fix="" if ok else "let it cool down, add a fan or a heat sink",
    )
    free_mib = environment.get("disk_free_mib")
    ok = free_mib is None or free_mib >= LOW_DISK_MIB
    yield Check(
        name=f"{label} disk",
        ok=ok,
        detail="not visible" if free_mib is None else f"{free_mib / 1024:.1f} GiB free",
        fix="" if ok else f"hwnas devices clean {name}",
    )


def _check_runtimes(
    label: str, session: DeviceSession, found: Mapping[str, Any], fix: str
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
        fix="" if ok else fix,
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
