"""From the ONNX file every network is exported to, to what a device's runtime runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hwnas_sdk import _resources
from hwnas_sdk._tvm.versions import installed_version
from hwnas_sdk.core.errors import DeviceError, ExportError
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Artifact, DeviceSpec
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.tuning_database import TuningDatabase
from hwnas_sdk.export.tvm import TvmCompiler
from hwnas_sdk.export.tvm_target import TvmTarget, device_target, parse_target

UNTUNED = (
    "untuned TVM was 11-61x slower than ONNX Runtime on 20 networks: run `hwnas tune` first, "
    "or measure with --runtime ort"
)


class ArtifactMaker:
    """Makes the files one device runs; call `close` when none is needed for a while.

    Args:
        compiler: makes a compiler, on the first file; None leaves files as they are.
    """

    def __init__(self, compiler: Callable[[], TvmCompiler] | None = None) -> None:
        self._new_compiler = compiler
        self._compiler: TvmCompiler | None = None

    @property
    def compiles(self) -> bool:
        """Whether making a file takes seconds."""
        return self._new_compiler is not None

    def make(self, source: Artifact, name: str = "") -> Artifact:
        """Return what the device runs for the ONNX file `source`, which people call `name`.

        Raises: ExportError when it cannot be compiled, MissingExtraError without the compiler.
        """
        if self._new_compiler is None:
            return source
        if self._compiler is None:
            self._compiler = self._new_compiler()
        try:
            return self._compiler.compile(source)
        except ExportError as exc:
            label = name or source.arch_id
            raise ExportError(
                f"{label}: {exc.message}", code=exc.code, hint=exc.hint, retryable=exc.retryable
            ) from exc

    def close(self) -> None:
        """End the compiler's process; a later `make` starts another."""
        compiler, self._compiler = self._compiler, None
        if compiler is not None:
            compiler.close()


def artifact_maker(
    session: DeviceSession, settings: MeasureSettings, cache: ArtifactCache
) -> ArtifactMaker:
    """Maker of the files `session` runs with `settings`.

    Raises: DeviceError when the board has no such runtime, MissingExtraError when this host cannot
        compile for it.
    """
    if settings.runtime != "tvm" or not session.needs_artifacts:
        return ArtifactMaker()
    check_runtime(session.spec, settings.runtime)
    target = session_target(session.spec, threads=settings.threads)
    tuning = tuning_database(target)
    return ArtifactMaker(lambda: TvmCompiler(cache, target, tuning=tuning))


def check_runtime(spec: DeviceSpec, runtime: str) -> None:
    """Refuse a runtime the board said it does not have, before anything is compiled.

    Raises: DeviceError "runtime_missing".
    """
    runtimes = spec.details.get("runtimes")
    said = runtimes.get(runtime) if isinstance(runtimes, Mapping) else None
    error: Any = said.get("error") if isinstance(said, Mapping) else None
    if runtime in spec.runtimes or error is None:
        return
    raise DeviceError(
        f"{spec.name} has no runtime {runtime!r}: {error.get('message', 'not installed')}",
        device_id=spec.id,
        code="runtime_missing",
        hint=f"install it on the board: hwnas devices setup {spec.name} --runtime {runtime}",
    )


def session_target(spec: DeviceSpec, *, threads: int = 1) -> TvmTarget:
    """TVM target of a device: what it says of itself, or what its driver was told (``target=``)."""
    given = spec.details.get("tvm_target")
    if isinstance(given, str):
        return parse_target(given, threads=threads)
    return device_target(spec, threads=threads)


def tuning_database(target: TvmTarget) -> TuningDatabase:
    """This user's tuned layers for `target`.

    Raises: MissingExtraError without TVM, ExportError "tvm_pair" for versions that do not fit.
    """
    return TuningDatabase(_resources.tuning_path(), target, installed_version("the runtime TVM"))


def is_untuned(session: DeviceSession, settings: MeasureSettings) -> bool:
    """Whether measuring would compile with TVM's default schedules only."""
    if settings.runtime != "tvm" or not session.needs_artifacts:
        return False
    target = session_target(session.spec, threads=settings.threads)
    return not tuning_database(target).folders
