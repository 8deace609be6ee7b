"""What `hwnas doctor` looks at in the software: Python, packages, store, cache, agent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hwnas_sdk.core.errors import HwnasError

LOW_DISK_GIB = 1.0
_PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be.
        detail: what was found.
        fix: the command or step that mends it; empty when there is nothing to mend.
        exit_code: of the command when this check fails; 0 for advice nothing depends on.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    exit_code: int = 0


def guarded(
    name: str, run: Callable[[], Iterable[Check]], *, exit_code: int = 3
) -> Iterator[Check]:
    """Findings of `run`; on a machine so broken that `run` itself fails, that is the finding."""
    try:
        yield from run()
    except Exception as exc:  # noqa: BLE001  whatever is broken, the other checks must run
        yield Check(
            name=name,
            ok=False,
            detail=f"cannot be checked: {type(exc).__name__}: {exc}",
            fix="reinstall hwnas-sdk; if that does not help, report this line",
            exit_code=exit_code,
        )


def check_python() -> Check:
    """Interpreter and platform."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info >= (3, 11) and sys.platform == "linux"
    return Check(
        name="python",
        ok=ok,
        detail=f"{sys.implementation.name} {version} on {sys.platform}",
        fix="" if ok else "use Python 3.11 or newer on Linux",
        exit_code=3,
    )


def check_packages() -> Check:
    """Every required package is installed, at least in the version asked for."""
    versions, missing = [], []
    for requirement in metadata.requires("hwnas-sdk") or []:
        if "extra ==" in requirement:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?.*", requirement)
        assert match is not None, requirement
        name, minimum = match.group(1), match.group(2) or "0"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(f"{name} (not installed)")
            continue
        versions.append(f"{name} {version}")
        if _numbers(version) < _numbers(minimum):
            missing.append(f"{name} ({version} < {minimum})")
    return Check(
        name="packages",
        ok=not missing,
        detail=("missing: " + ", ".join(missing)) if missing else ", ".join(versions),
        fix=f"{sys.executable} -m pip install --upgrade hwnas-sdk" if missing else "",
        exit_code=3,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check_import(name: str, code: str, *, fix: str) -> Check:
    """Run `code` in a process of its own: a library that crashes must not take us along."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(
            name=name,
            ok=False,
            detail=f"no answer within {_PROBE_TIMEOUT_S:.0f} s",
            fix=fix,
            exit_code=3,
        )
    if done.returncode == 0:
        return Check(name=name, ok=True, detail=done.stdout.strip(), exit_code=3)
    lines = done.stderr.strip().splitlines()
    reason = lines[-1] if lines else f"ended with status {done.returncode}"
    return Check(name=name, ok=False, detail=reason, fix=fix, exit_code=3)


def check_runtime() -> Check:
    """ONNX Runtime imports and has a CPU provider."""
    return check_import(
        "runtime",
        "from hwnas_sdk.export.host_runtime import load_onnxruntime;"
        "o = load_onnxruntime(); p = o.get_available_providers();"
        "assert 'CPUExecutionProvider' in p, p;"
        "print('onnxruntime', o.__version__, 'with', ', '.join(p))",
        fix=f"{sys.executable} -m pip install --force-reinstall onnxruntime",
    )


def check_report() -> Check:
    """What reports need imports."""
    return check_import(
        "report",
        "import matplotlib, jinja2, hwnas_sdk.report.html;"
        "print('matplotlib', matplotlib.__version__ + ',', 'jinja2', jinja2.__version__)",
        fix=f"{sys.executable} -m pip install --force-reinstall matplotlib jinja2",
    )


def check_store(path: Path) -> Check:
    """The store opens and has no damage; a missing one is fine."""
    from hwnas_sdk.store.sqlite import MeasurementStore

    if not path.is_file():
        return Check(name="store", ok=True, detail=f"none yet; will be {path}", exit_code=6)
    try:
        with MeasurementStore.open(path, read_only=True) as store:
            problems = store.check()
    except HwnasError as exc:
        return Check(name="store", ok=False, detail=exc.message, fix=exc.hint, exit_code=6)
    return Check(
        name="store",
        ok=not problems,
        detail="; ".join(problems) if problems else f"{path} opens, no problems",
        fix="restore a backup, or start a new store with --db" if problems else "",
        exit_code=6,
    )


def check_cache(root: Path) -> Check:
    """The artifact cache is writable and its disk has room."""
    from hwnas_sdk.devices.wheels import WheelStore
    from hwnas_sdk.export.cache_limit import limit_bytes, used_bytes

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"x")
        free_gib = shutil.disk_usage(root).free / 2**30
        limit, used, wheels = limit_bytes(), used_bytes(root), WheelStore().size_bytes()
    except HwnasError as exc:
        return Check(name="cache", ok=False, detail=exc.message, fix=exc.hint, exit_code=3)
    except OSError as exc:
        return Check(
            name="cache",
            ok=False,
            detail=f"{root}: {exc.strerror}",
            fix="make the folder writable, or set HWNAS_HOME to another one",
            exit_code=6,
        )
    ok = free_gib >= LOW_DISK_GIB
    return Check(
        name="cache",
        ok=ok,
        detail=f"{root} is writable, {used / 2**20:.0f} of {limit / 2**20:.0f} MiB used, "
        f"wheels for boards {wheels / 2**20:.0f} MiB, {free_gib:.1f} GiB free",
        fix="" if ok else "free some disk space, or set HWNAS_HOME to another disk",
    )


def check_agent() -> Check:
    """The program that measures on boards can be built."""
    from hwnas_sdk.devices.agent_build import build_agent

    try:
        with tempfile.TemporaryDirectory() as folder:
            agent = build_agent(Path(folder))
            detail = f"{agent.name}, {agent.stat().st_size / 1024:.0f} KiB"
    except (HwnasError, OSError) as exc:
        return Check(
            name="agent",
            ok=False,
            detail=exc.message if isinstance(exc, HwnasError) else str(exc),
            fix="reinstall hwnas-sdk: its folder device_agents is damaged",
            exit_code=3,
        )
    return Check(name="agent", ok=True, detail=detail, exit_code=3)


def worst_exit_code(checks: Sequence[Check]) -> int:
    """Exit code of the run: a board's (4) before the others', 0 when only advice is left."""
    codes = {check.exit_code for check in checks if not check.ok} - {0}
    return 4 if 4 in codes else max(codes, default=0)
