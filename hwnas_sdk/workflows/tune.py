"""Tuning TVM's schedules: each layer once, for every network that has it.

A layer is one fused function that TVM compiles; two are the same when their heaviest block is (the
convolution), whatever is added or clipped afterwards. What was tuned is kept per target below
``HWNAS_HOME/tuning`` and used by every later compilation. Killed, the same command goes on with the
layers that are missing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import hwnas_sdk
from hwnas_sdk._tvm.process import TvmProcess
from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import ConfigError, DeviceError, ExportError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.devices.drivers.tvm_rpc import TvmRpcSession
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.tuning_database import TunedLayer, TuningDatabase
from hwnas_sdk.export.tvm import TvmCompiler
from hwnas_sdk.export.tvm_target import TvmTarget, linker
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.measure import Target
from hwnas_sdk.workflows.runtime import (
    ArtifactMaker,
    check_runtime,
    session_target,
    tuning_database,
)

DEFAULT_TRIALS: Final = 16
LAYER_S: Final = 3.0
TRIAL_S: Final = 0.6
"""Seconds a layer and a trial took on an idle 2-core x86 machine; for estimates only."""

_LISTING_TIMEOUT_S: Final = 900.0
_CANDIDATE_TIMEOUT_S: Final = 60.0
_CRASHES: Final = frozenset({"tvm_crashed", "tvm_timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """One layer of the networks to tune for.

    Attributes:
        key, name, shape: which.
        weight: how often the networks call it.
        tuned: whether the database has it.
    """

    key: str
    name: str
    shape: str
    weight: int
    tuned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """One network on the device, with TVM's default schedules and with the tuned ones.

    Attributes:
        arch: the network.
        untuned_ms, tuned_ms: None where no valid measurement was obtained.
        runs: ids of the two runs.
    """

    arch: str
    untuned_ms: float | None
    tuned_ms: float | None
    runs: tuple[str, str]

    @property
    def factor(self) -> float | None:
        """How many times faster the tuned library is."""
        if self.untuned_ms is None or self.tuned_ms is None:
            return None
        return self.untuned_ms / self.tuned_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tuning run did.

    Attributes:
        layers: those tuned now, in order.
        failed: name and reason of layers on which TVM crashed or nothing ran.
        n_skipped: layers that were tuned before.
    """

    layers: tuple[TunedLayer, ...]
    failed: Mapping[str, str]
    n_skipped: int


class Tuner:
    """Tunes the layers of some networks for one device; a context manager.

    Args:
        session: the device.
        onnx: files of the networks.
        threads: how many threads the libraries will run on.
        on_event: hears of progress.
        process: where TVM runs; None starts a child.

    Raises: DeviceError for a device that nothing can be tuned on, MissingExtraError without TVM.
    """

    def __init__(
        self,
        session: DeviceSession,
        onnx: Sequence[Path | str],
        *,
        threads: int = 1,
        on_event: EventSink = ignore,
        clock: Clock = SYSTEM_CLOCK,
        process: TvmProcess | None = None,
    ) -> None:
        self._rpc = _rpc_of(session)
        check_runtime(session.spec, "tvm")
        self.target: TvmTarget = session_target(session.spec, threads=threads)
        self.database: TuningDatabase = tuning_database(self.target)
        self._onnx = [str(path) for path in dict.fromkeys(onnx)]
        self._on_event = on_event
        self._clock = clock
        self._process = process or TvmProcess()
        self._listed: list[LayerState] = []

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End the child process."""
        self._process.close()

    def layers(self) -> list[LayerState]:
        """Every layer of the networks, each once.

        Raises: ExportError when TVM cannot read a network.
        """
        reply = self._process.request(
            "layers",
            timeout_s=_LISTING_TIMEOUT_S,
            onnx=self._onnx,
            folders=[str(folder) for folder in self.database.folders],
            **self._common(),
        )
        self._listed = [LayerState(**entry) for entry in reply["layers"]]
        return self._listed

    def tune(self, *, trials: int, seed: int = 0) -> TuneResult:
        """Tune what is not tuned yet. A layer TVM crashes on is left out, the others are tuned.

        Raises: DataError when another process tunes for this target.
        """
        done: list[TunedLayer] = []
        failed: dict[str, str] = {}
        with self.database.tuning():
            listed = self._listed or self.layers()
            todo = [layer for layer in listed if not layer.tuned]
            for number, layer in enumerate(todo):
                self._on_event(Event("tune", number, len(todo)))
                try:
                    found = self._tune(layer, trials, seed)
                except ExportError as exc:
                    failed[layer.name] = exc.message
                    if exc.code in _CRASHES:
                        self.layers()  # the new child has to find them first
                    continue
                if found.after_us is None:
                    failed[layer.name] = "no schedule ran"
                else:
                    done.append(found)
            self._on_event(Event("tune", len(todo), len(todo)))
        return TuneResult(layers=tuple(done), failed=failed, n_skipped=len(listed) - len(todo))

    def _tune(self, layer: LayerState, trials: int, seed: int) -> TunedLayer:
        began_s = self._clock.monotonic_s()
        scratch = self.database.scratch()
        found = self._process.request(
            "tune",
            timeout_s=300.0 + 30.0 * trials,
            key=layer.key,
            trials=trials,
            seed=seed,
            out=str(scratch),
            link=linker(self.target),
            rpc=self._rpc,
            candidate_timeout_s=_CANDIDATE_TIMEOUT_S,
            **self._common(),
        )
        tuned = TunedLayer(
            key=layer.key,
            name=layer.name,
            shape=layer.shape,
            trials=trials,
            before_us=found["before_us"],
            after_us=found["after_us"],
            seconds=self._clock.monotonic_s() - began_s,
            tuned_at=self._clock.now().isoformat(timespec="seconds"),
        )
        if tuned.after_us is not None:
            self.database.keep(scratch, tuned)
        return tuned

    def _common(self) -> dict[str, Any]:
        return {"target": self.target.spec, "arch": self.target.arch}


def estimated_s(n_layers: int, trials: int) -> float:
    """Seconds tuning would take on an idle machine."""
    return n_layers * (LAYER_S + TRIAL_S * trials)


def measure_speedup(
    lab: Lab, session: DeviceSession, target: Target, settings: MeasureSettings
) -> Speedup:
    """Measure a network untuned and tuned, the way every network is measured.

    Raises: DeviceError, ExportError.
    """
    settings = replace(settings, runtime="tvm")
    chosen = session_target(session.spec, threads=settings.threads)
    database = tuning_database(chosen)
    found: list[float | None] = []
    runs: list[str] = []
    for form, tuning in (("untuned", None), ("tuned", database)):
        plan = {
            "sdk_version": hwnas_sdk.__version__,
            "device_id": session.spec.id,
            "form": form,
            "tuning": "none" if tuning is None else tuning.id,
            "item": target.item,
            "settings": settings.to_json(),
        }
        run = lab.store.start_run("tune", plan)
        measurer = lab.measurer(session, run, settings)

        def compiler(tuning: TuningDatabase | None = tuning) -> TvmCompiler:
            return TvmCompiler(lab.cache, chosen, tuning=tuning)

        measurer.maker = ArtifactMaker(compiler)
        record = measurer.measure([target], task=f"measure {form}")[target.item]
        lab.store.finish_run(run.id)
        found.append(record.latency_ms if record.status == "valid" else None)
        runs.append(run.id)
    return Speedup(
        arch=target.arch, untuned_ms=found[0], tuned_ms=found[1], runs=(runs[0], runs[1])
    )


def layer_documents(layers: Sequence[TunedLayer]) -> list[dict[str, Any]]:
    """JSON form of tuned layers, with the factor gained."""
    return [{**asdict(layer), "factor": layer_factor(layer)} for layer in layers]


def layer_factor(layer: TunedLayer) -> float | None:
    """How many times faster the best schedule of a layer is than TVM's own."""
    if layer.before_us is None or not layer.after_us:
        return None
    return layer.before_us / layer.after_us


def mean_factor(layers: Sequence[TunedLayer]) -> float | None:
    """Geometric mean of the layers' factors; None without any."""
    factors = [factor for layer in layers if (factor := layer_factor(layer))]
    return statistics.geometric_mean(factors) if factors else None


def _rpc_of(session: DeviceSession) -> dict[str, Any] | None:
    """Where candidates are run: None for this machine.

    Raises: DeviceError, ConfigError.
    """
    if isinstance(session, TvmRpcSession):
        return session.address
    if session.spec.uri.startswith("local:"):
        return None
    if not session.needs_artifacts:
        raise ConfigError(
            f"{session.spec.name} is a table: there is nothing to tune", code="not_tunable"
        )
    raise DeviceError(
        f"{session.spec.name} runs our agent, which times whole networks, not TVM's candidates",
        device_id=session.spec.id,
        code="not_tunable",
        hint="start TVM's RPC server on the board and tune through tvm-rpc://HOST:PORT/KEY "
        "(docs/howto-tvm.md), or tune for its processor on another machine",
    )
