"""Makes a board ready to measure: finds its Python, brings the runtime, checks that it imports.

Everything is fetched by the host and pushed in one stream; the board needs a shell, `tar` and a
Python, but no internet, no pip and no rights beyond its own folder. What is there already is left
alone, so the same call again takes seconds; an interrupted one is simply made again.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.devices import _board_install
from hwnas_sdk.devices.board_facts import BoardFacts, PythonFacts, ask_board
from hwnas_sdk.devices.board_system import OLDEST_PYTHON, candidates, target_of
from hwnas_sdk.devices.setup_push import push_and_install
from hwnas_sdk.devices.transports.shell import BoardShell
from hwnas_sdk.devices.wheels import (
    Wheel,
    WheelStore,
    WheelTarget,
    package_name,
    requirements,
)

_LOG = logging.getLogger(__name__)
MODULES: Final[Mapping[str, str]] = {"ort": "onnxruntime", "tvm": "tvm"}
"""Runtimes and what is imported to see whether they work."""

_IMPORT_S: Final = 120.0
_MARGIN_MIB: Final = 32
_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupOptions:
    """What is wanted.

    Attributes:
        runtime: "ort" or "tvm"; a board may have both.
        rpc: also what TVM's RPC server needs.
        wheels: folder on the host to take wheels from; None downloads them.
        python: interpreter on the board; None chooses.
        pins: exact versions, package -> version.
        upgrade: bring the newest versions even when the board has a working runtime.
    """

    runtime: str = "ort"
    rpc: bool = False
    wheels: Path | None = None
    python: str | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    upgrade: bool = False

    def wanted(self) -> tuple[str, ...]:
        """The requirements, with the pins in.

        Raises: ConfigError for an unknown runtime or a pin of something else.
        """
        names = requirements(self.runtime, rpc=self.rpc)
        unknown = [name for name in self.pins if name not in names]
        if unknown:
            free = [name for name in names if name.replace("_", "").isalpha()]
            raise ConfigError(
                f"the version of {unknown[0]!r} is not yours to choose here",
                hint=f"one of {', '.join(free)}",
            )
        return tuple(f"{name}=={self.pins[name]}" if name in self.pins else name for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupResult:
    """What the board has now.

    Attributes:
        python: the interpreter that measures.
        python_version: its version.
        base: the board's interpreter it was made from; the same one for a runtime of the board.
        is_own: whether it is our environment, not a runtime the board had before.
        changed: whether anything was installed by this call.
        runtimes: name -> {version, providers}.
        packages: what we installed, package -> version.
        pushed_bytes: sent to the board by this call.
        system: the board's operating system and processor.
        duration_s: of the call.
    """

    python: str
    python_version: str
    base: str
    is_own: bool
    changed: bool
    runtimes: Mapping[str, Any]
    packages: Mapping[str, str]
    pushed_bytes: int
    system: str
    duration_s: float


def set_up(
    shell: BoardShell,
    *,
    work: str,
    options: SetupOptions | None = None,
    store: WheelStore | None = None,
    on_event: EventSink = ignore,
    clock: Clock = SYSTEM_CLOCK,
) -> SetupResult:
    """Bring the runtime to the board behind `shell`, unless it is there and works.

    Args:
        shell: a connection.
        work: our folder on the board, as a shell word.
        options: what is wanted.
        store: where wheels are kept on this host.
        on_event: hears of progress.
        clock: for `duration_s`.

    Raises: DeviceError "os_32bit", "glibc_too_old", "musl_unsupported", "libc_unsupported",
    "machine_unsupported", "python_missing", "python_too_old", "wheels_missing", "no_space",
    "runtime_crashed", "runtime_missing", "setup_failed", "deploy_failed", "board_busy", "deadline",
    "parse_failed" or as `BoardShell.run`; ConfigError "download_failed", "pip_missing".
    """
    setup = _Setup(shell, work, options or SetupOptions(), store or WheelStore(), on_event)
    return setup.run(clock)


class _Setup:
    """One call of `set_up`."""

    def __init__(
        self,
        shell: BoardShell,
        work: str,
        options: SetupOptions,
        store: WheelStore,
        on_event: EventSink,
    ) -> None:
        self._shell = shell
        self._name = shell.device_id
        self._work = work
        self._options = options
        self._store = store
        self._on_event = on_event
        options.wanted()  # refuses wrong options before the board is asked

    def run(self, clock: Clock) -> SetupResult:
        started_s = clock.monotonic_s()
        self._step(0, "asking the board what it is")
        facts = ask_board(self._shell, work=self._work, python=self._options.python)
        _LOG.info("%s: %s", self._name, facts.raw)
        self._step(1, f"{facts.name}: looking for a runtime")
        env = self._sound_environment(facts)
        if env is not None and self._has_all(env):
            result = self._result(facts, env, changed=False, pushed_bytes=0)
        else:
            result = self._of_the_board(facts) or self._install(facts, env)
        self._step(_STEPS, "ready")
        return replace(result, duration_s=clock.monotonic_s() - started_s)

    # --- what is there already ----------------------------------------------------------------

    def _sound_environment(self, facts: BoardFacts) -> Mapping[str, Any] | None:
        """Description of our environment, when its Python is still there and all of it imports."""
        env = _description(facts)
        if env is None or _base_of(env, facts) is None:
            return None
        python = f"{facts.work}/env/bin/python"
        for runtime in env["runtimes"]:
            if self._import(python, MODULES[runtime], own=True) is None:
                return None
        return env

    def _has_all(self, env: Mapping[str, Any]) -> bool:
        packages = env["packages"]
        pins = all(packages.get(name) == pin for name, pin in self._options.pins.items())
        rpc = not self._options.rpc or "tornado" in packages
        return (
            self._options.runtime in env["runtimes"] and pins and rpc and not self._options.upgrade
        )

    def _of_the_board(self, facts: BoardFacts) -> SetupResult | None:
        """A runtime the board's own default Python has, such as NVIDIA's on a Jetson.

        It is what the agent uses where there is no environment of ours; ours would hide it.
        """
        options = self._options
        if options.upgrade or options.pins or options.runtime != "ort" or facts.env:
            return None
        python = facts.pythons[0] if facts.pythons else None
        if python is None or not python.runtime or python.version < OLDEST_PYTHON:
            return None
        found = self._import(python.executable, MODULES["ort"], own=False)
        if found is None:
            return None
        return SetupResult(
            python=python.executable,
            python_version=python.version_text,
            base=python.executable,
            is_own=False,
            changed=False,
            runtimes={"ort": found},
            packages={},
            pushed_bytes=0,
            system=facts.name,
            duration_s=0.0,
        )

    def _import(self, python: str, module: str, *, own: bool) -> Mapping[str, Any] | None:
        """What importing `module` says; None where it fails."""
        code = shlex.quote(_board_install.IMPORT_CODE)
        setting = "PYTHONNOUSERSITE=1 " if own else ""
        command = f"{setting}{shlex.quote(python)} -c {code} {module}"
        done = self._shell.run(command, timeout_s=_IMPORT_S)
        try:
            found = json.loads(done.text.splitlines()[-1]) if done.status == 0 else None
        except (ValueError, IndexError):
            found = None
        if found is None:
            _LOG.info("%s: %s does not import %s: %s", self._name, python, module, done.error_line)
        return found

    # --- bringing it --------------------------------------------------------------------------

    def _install(self, facts: BoardFacts, env: Mapping[str, Any] | None) -> SetupResult:
        """Build on `env`, else with the first interpreter that has wheels."""
        pythons = candidates(facts, device_id=self._name)
        kept = None if self._options.upgrade else env
        if kept is not None:
            base = _base_of(kept, facts)
            pythons.sort(key=lambda python: python != base)
        refusal: DeviceError | None = None
        for python in pythons:
            target = target_of(facts, python, device_id=self._name)
            self._step(2, f"finding wheels for {target}")
            try:
                with self._wheels(target, facts, kept) as wheels:
                    return self._install_with(facts, python, wheels, kept)
            except DeviceError as exc:
                if exc.code != "wheels_missing":
                    raise
                refusal = refusal or exc
                kept = None  # another interpreter has to begin anew
        assert refusal is not None
        raise refusal

    def _wheels(
        self, target: WheelTarget, facts: BoardFacts, kept: Mapping[str, Any] | None
    ) -> AbstractContextManager[tuple[Wheel, ...]]:
        """What is missing; without anything to build on, all the board had before as well."""
        wanted = list(self._options.wanted())
        before = _description(facts) if kept is None else None
        if before is not None:
            for runtime in before["runtimes"]:
                have = {package_name(text) for text in wanted}
                needed = requirements(runtime, rpc="tornado" in before["packages"])
                wanted += [text for text in needed if package_name(text) not in have]
        return self._store.wheels(
            wanted,
            target,
            folder=self._options.wheels,
            upgrade=self._options.upgrade,
            device_id=self._name,
        )

    def _install_with(
        self,
        facts: BoardFacts,
        python: PythonFacts,
        wheels: Sequence[Wheel],
        kept: Mapping[str, Any] | None,
    ) -> SetupResult:
        before = kept or _description(facts) or {"runtimes": {}}
        names = {self._options.runtime, *before["runtimes"]}
        packages = {wheel.package: wheel.version for wheel in wheels}
        n_bytes = sum(wheel.unpacked_bytes for wheel in wheels)
        if kept is not None:
            packages = {**kept["packages"], **packages}
            n_bytes += int(kept["bytes"])
        self._check_space(facts, n_bytes + sum(wheel.size_bytes for wheel in wheels))
        self._step(3, f"sending and installing {', '.join(sorted(packages))}")
        env = push_and_install(
            self._shell,
            work=facts.work,
            python=python,
            wheels=wheels,
            request={
                "runtimes": {name: MODULES[name] for name in sorted(names)},
                "packages": packages,
                "bytes": n_bytes,
                "fresh": kept is None,
            },
            on_event=self._on_event,
        )
        pushed = sum(wheel.size_bytes for wheel in wheels)
        return self._result(facts, env, changed=True, pushed_bytes=pushed)

    def _check_space(self, facts: BoardFacts, n_bytes: int) -> None:
        need_mib = n_bytes // 2**20 + _MARGIN_MIB
        if facts.free_mib is not None and facts.free_mib < need_mib:
            raise DeviceError(
                f"{self._name!r} has {facts.free_mib} MiB free in {facts.work}, "
                f"setting it up takes {need_mib} MiB",
                device_id=self._name,
                code="no_space",
                hint="free some space there, or choose another folder: ?work=DIR in the URI",
            )

    # --- small things -------------------------------------------------------------------------

    def _result(
        self, facts: BoardFacts, env: Mapping[str, Any], *, changed: bool, pushed_bytes: int
    ) -> SetupResult:
        return SetupResult(
            python=f"{facts.work}/env/bin/python",
            python_version=env["python"],
            base=env["base"],
            is_own=True,
            changed=changed,
            runtimes=env["runtimes"],
            packages=env["packages"],
            pushed_bytes=pushed_bytes,
            system=facts.name,
            duration_s=0.0,
        )

    def _step(self, done: int, message: str) -> None:
        self._on_event(Event(f"setup {self._name}", done=done, total=_STEPS, message=message))


def _description(facts: BoardFacts) -> Mapping[str, Any] | None:
    """Description of the environment on the board; None where there is none that makes sense."""
    try:
        env = json.loads(facts.env)
        sound = (
            env["format"] == 1
            and set(env["runtimes"]) <= set(MODULES)
            and isinstance(env["packages"], dict)
            and isinstance(env["bytes"], int)
            and bool(env["base"] and env["python"])
        )
    except (ValueError, KeyError, TypeError):
        return None
    return dict(env) if sound else None


def _base_of(env: Mapping[str, Any], facts: BoardFacts) -> PythonFacts | None:
    """The interpreter the environment was made from, while it still is the same version."""
    minor = str(env["python"]).split(".")[:2]
    for python in facts.pythons:
        if python.executable == env["base"]:
            return python if python.version_text.split(".")[:2] == minor else None
    return None
