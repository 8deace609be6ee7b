"""The facade: a store, an artifact cache and the boards, behind one object."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import hwnas_sdk
from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DataError, MeasurementError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.settings import MeasureSettings, settings_preset
from hwnas_sdk.core.types import (
    Architecture,
    DeviceProfile,
    DeviceSpec,
    Measurement,
    ParetoFront,
    Verdict,
)
from hwnas_sdk.devices.inventory import Inventory, open_session
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.cache_limit import working_with
from hwnas_sdk.export.tflite import import_tflite
from hwnas_sdk.export.user_model import import_onnx
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.sqlite import MeasurementStore, Run
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.fronts import verdict_from_mapping, verdict_to_mapping
from hwnas_sdk.workflows.loop import Loop, LoopPlan, LoopResult
from hwnas_sdk.workflows.measure import (
    BoardTime,
    Measurer,
    Target,
    architecture_target,
    artifact_target,
    standard_sentinel,
)
from hwnas_sdk.workflows.priors import load_prior
from hwnas_sdk.workflows.profile import (
    profile_of,
    reference_architectures,
    reference_targets,
)
from hwnas_sdk.workflows.profile_file import profile_from_mapping, profile_to_mapping
from hwnas_sdk.workflows.runtime import artifact_maker
from hwnas_sdk.workflows.search import SearchPlan, search_front
from hwnas_sdk.workflows.verify import judge, reference_box
from hwnas_sdk.workflows.zero import (
    described_device,
    shipped_profiles,
    zero_measurement_beliefs,
)


class Lab:
    """Everything needed to work with boards; a context manager.

    Args:
        store: the measurement store.
        cache: the artifact cache.
        inventory: the boards.
        on_event: hears of progress.
    """

    def __init__(
        self,
        store: MeasurementStore,
        cache: ArtifactCache,
        inventory: Inventory,
        *,
        on_event: EventSink = ignore,
    ) -> None:
        self.store = store
        self.cache = cache
        self.inventory = inventory
        self.on_event = on_event
        self._sessions: dict[str, DeviceSession] = {}
        self._stack = contextlib.ExitStack()

    @classmethod
    def open(cls, *, db: Path | str | None = None, on_event: EventSink = ignore) -> Self:
        """Open the lab of this user (``HWNAS_HOME``), or with another store.

        Raises: DataError when the store cannot be opened.
        """
        store = MeasurementStore.open(Path(db) if db else _resources.default_store_path())
        cache = ArtifactCache(_resources.artifact_cache_path())
        lab = cls(store, cache, Inventory(_resources.inventory_path()), on_event=on_event)
        lab._stack.callback(store.close)
        lab._stack.enter_context(working_with(cache))
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close sessions and store."""
        self._sessions.clear()
        self._stack.close()

    def device(self, name: str) -> DeviceSession:
        """Open device of the inventory (or a device URI), kept open until the lab closes.

        Raises: ConfigError for an unknown name, DeviceError for a board that does not answer.
        """
        if name not in self._sessions:
            session = open_session(name, inventory=self.inventory, on_event=self.on_event)
            self._sessions[name] = self._stack.enter_context(session)
        return self._sessions[name]

    # --- measuring ------------------------------------------------------------------------------

    def targets(
        self,
        what: Sequence[Architecture | Path | str],
        *,
        space: SearchSpace | None = None,
        folded: bool = False,
        batch: int = 1,
        fixed_dims: Mapping[str, int] | None = None,
    ) -> list[Target]:
        """Targets for architectures, architecture strings, ``.onnx`` and ``.tflite`` files.

        `fixed_dims` gives sizes to dynamic dimensions of ``.onnx`` files, by the dimension's name.

        Raises: SpaceError, ExportError.
        """
        space = space or get_space("nasbench201")
        targets = []
        for thing in what:
            if str(thing).endswith(".tflite"):
                artifact = import_tflite(Path(str(thing)), cache=self.cache)
                targets.append(artifact_target(artifact, Path(str(thing)).name))
            elif isinstance(thing, Path) or (isinstance(thing, str) and thing.endswith(".onnx")):
                artifact = import_onnx(Path(thing), cache=self.cache, fixed_dims=fixed_dims)
                targets.append(artifact_target(artifact, Path(thing).name))
            else:
                arch = space.decode(thing) if isinstance(thing, str) else thing
                if folded:
                    space.layers(arch, folded=True)  # refuses dead cells before work begins
                targets.append(
                    architecture_target(space, arch, cache=self.cache, folded=folded, batch=batch)
                )
        return list({target.item: target for target in targets}.values())

    def measurer(
        self,
        session: DeviceSession,
        run: Run,
        settings: MeasureSettings,
        *,
        seed: int = 0,
        board_s: float | None = None,
    ) -> Measurer:
        """Measurer with the standard sentinel."""
        return Measurer(
            self.store,
            session,
            run.id,
            settings,
            sentinel=standard_sentinel(session, self.cache),
            check_outputs=True,
            seed=seed,
            on_event=self.on_event,
            maker=artifact_maker(session, settings, self.cache),
            time=BoardTime(limit_s=board_s),
        )

    def measure(
        self,
        what: Sequence[Architecture | Path | str],
        *,
        on: DeviceSession,
        settings: MeasureSettings | None = None,
        folded: bool = False,
        fixed_dims: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> list[Measurement]:
        """Measure networks, in the order given, each once; see `targets` for `fixed_dims`.

        A call that was interrupted continues when it is made again; a finished one starts anew.
        Raises: SpaceError, ExportError, DeviceError.
        """
        settings = settings or settings_preset("quick")
        targets = self.targets(what, folded=folded, batch=settings.batch, fixed_dims=fixed_dims)
        plan = {
            "sdk_version": hwnas_sdk.__version__,
            "device_id": on.spec.id,
            "items": [target.item for target in targets],
            "targets": [_text(thing) for thing in what],
            "folded": folded,
            "fixed_dims": dict(fixed_dims or {}),
            "settings": settings.to_json(),
            "seed": seed,
        }
        run = self.store.start_run("measure", plan)
        results = self.measurer(on, run, settings, seed=seed).measure(
            targets, task=f"measure {on.spec.name}"
        )
        self.store.finish_run(run.id)
        return [results[target.item] for target in targets]

    # --- learning -------------------------------------------------------------------------------

    def profile(
        self,
        on: DeviceSession,
        *,
        references: str = "ours",
        settings: MeasureSettings | None = None,
        seed: int = 0,
    ) -> DeviceProfile:
        """Measure the reference set and keep the profile in the store.

        Raises: MeasurementError when a reference has no valid measurement.
        """
        settings = settings or settings_preset("quick")
        space = get_space("nasbench201")
        archs = reference_architectures(references)
        plan = {
            "sdk_version": hwnas_sdk.__version__,
            "device_id": on.spec.id,
            "references": references,
            "settings": settings.to_json(),
            "seed": seed,
        }
        run = self.store.start_run("profile", plan)
        targets, pairs = reference_targets(
            space,
            archs,
            cache=self.cache,
            batch=settings.batch,
            pairs=on.needs_artifacts or on.origin == "simulated",
        )
        measurer = self.measurer(on, run, settings, seed=seed)
        results = measurer.measure([*targets, *pairs], task=f"profile {on.spec.name}")
        try:
            profile = profile_of(
                [results[target.item] for target in targets],
                archs,
                spec=on.spec,
                settings=settings,
                space=space.name,
                references=references,
                source=f"run {run.id}",
            )
        except MeasurementError:
            # Every attempt is used up: the same command must start anew, not fail for ever.
            self.store.finish_run(run.id)
            raise
        self.store.finish_run(run.id, profile_to_mapping(profile))
        return profile

    def stored_profile(self, device_id: str, *, runtime: str = "ort") -> tuple[Run, DeviceProfile]:
        """Newest profile of a device with a runtime: two runtimes are two devices to a predictor.

        Raises: DataError when it was never profiled so.
        """
        for run in reversed(self.store.runs("profile")):
            result = run.result or {}
            if result.get("device_id") == device_id and result.get("runtime", "ort") == runtime:
                return run, profile_from_mapping(result, where=f"run {run.id}")
        what = "" if runtime == "ort" else f" with the runtime {runtime}"
        option = "" if runtime == "ort" else f" --runtime {runtime}"
        raise DataError(
            f"device {device_id} has no profile{what}",
            code="no_profile",
            hint=f"measure one with `hwnas profile NAME{option}`",
        )

    def beliefs(
        self,
        on: DeviceSession,
        *,
        folded: bool = True,
        runtime: str = "ort",
        prior: LatencyPrior | None = None,
    ) -> Beliefs:
        """Predictors adapted to all valid measurements of the device's newest profile.

        `prior` is what is known of devices, None = the shipped one.
        Raises: DataError when it was never profiled with `runtime`.
        """
        run, _ = self.stored_profile(on.spec.id, runtime=runtime)
        space = get_space("nasbench201")
        labels = [
            Label.of(Architecture.of_id(m.arch_id), m, folded=item.endswith("/folded"))
            for item, m in sorted(self.store.done_items(run.id).items())
        ]
        return Beliefs.fit(space, labels, folded=folded, prior=prior)

    def beliefs_unmeasured(
        self, on: DeviceSession | DeviceSpec, *, folded: bool = True, runtime: str = "ort"
    ) -> Beliefs:
        """Beliefs from the closest shipped or stored profile of another device.

        `on` may be no more than a description (`described`).
        Raises: DataError when there is none with `runtime`.
        """
        return zero_measurement_beliefs(
            get_space("nasbench201"),
            on if isinstance(on, DeviceSpec) else on.spec,
            self._known_profiles(),
            folded=folded,
            runtime=runtime,
        )

    def described(self, family: str, chip: str = "") -> DeviceSpec:
        """A device that cannot be reached, by what `hwnas devices list` would say of it.

        Raises: ConfigError for a family that no driver, agent or profile knows.
        """
        return described_device(family, chip, profiles=self._known_profiles())

    def _known_profiles(self) -> list[DeviceProfile]:
        """The shipped profiles and the stored ones."""
        stored = [
            profile_from_mapping(run.result, where=f"run {run.id}")
            for run in self.store.runs("profile")
            if run.result
        ]
        return [*shipped_profiles(), *stored]

    # --- searching ------------------------------------------------------------------------------

    def search(
        self,
        space: SearchSpace,
        *,
        on: DeviceSession,
        method: str = "auto",
        candidates: int = 24,
        objectives: Sequence[str] = ("error", "latency"),
        folded: bool = True,
        runtime: str = "ort",
        prior: Path | None = None,
        seed: int = 0,
        **constraints: Any,
    ) -> ParetoFront:
        """Search from the device's profile; nothing is measured.

        `prior` is a file of `hwnas train latency`, None = the shipped one; `constraints` are
        max_latency_ms and max_memory_mib.
        Raises: DataError without a profile, ConfigError for an unknown method or objective.
        """
        plan = SearchPlan(
            space=space.name,
            method=method,
            objectives=tuple(objectives),
            candidates=candidates,
            prior=prior,
            seed=seed,
            **constraints,
        )
        return search_front(
            space,
            self.beliefs(on, folded=folded, runtime=runtime, prior=load_prior(prior)),
            plan=plan,
            device_id=on.spec.id,
            on_event=self.on_event,
        )

    def verify(
        self,
        front: ParetoFront,
        *,
        on: DeviceSession,
        settings: MeasureSettings | None = None,
    ) -> Verdict:
        """Measure the candidates of a front and compare; the verdict is kept in the store.

        The networks are measured in the form (folded or not) the predictions are for.
        Raises: DeviceError, DataError for an empty front or one predicted for another device.
        """
        if not front.candidates:
            raise DataError("the front has no candidates", code="empty_front")
        if front.device_id != on.spec.id:
            raise DataError(
                f"the front was predicted for {front.device_id}, not for {on.spec.id}",
                code="other_device",
                hint="search for this device first; `hwnas measure` compares boards",
            )
        folded = front.folded
        settings = settings or settings_preset("quick")
        space = get_space(front.space)
        plan = {
            "sdk_version": hwnas_sdk.__version__,
            "device_id": on.spec.id,
            "candidates": [c.architecture.id for c in front.candidates],
            "predicted_ms": [c.values["latency_ms"] for c in front.candidates],
            "folded": folded,
            "settings": settings.to_json(),
            "seed": front.seed,
        }
        run = self.store.start_run("verify", plan)
        targets = self.targets(
            [c.architecture for c in front.candidates], space=space, folded=folded
        )
        results = self.measurer(on, run, settings, seed=front.seed).measure(
            targets, task=f"verify on {on.spec.name}"
        )
        measured = {t.arch_id: results[t.item] for t in targets}
        box = reference_box(front.candidates)
        verdict = judge(front, measured, run_id=run.id, round_number=1, box=box)
        self.store.finish_run(run.id, verdict_to_mapping(verdict))
        return verdict

    def loop(self, plan: LoopPlan, *, on: DeviceSession, kind: str = "loop") -> LoopResult:
        """Run the closed loop; interrupted, the same plan continues."""
        return Loop(self.store, self.cache, on, plan, kind=kind, on_event=self.on_event).run()

    def report(self, what: Verdict | LoopResult | str, path: Path | str) -> Path:
        """Write the HTML page of a verdict, a loop or a run id; returns the path.

        Raises: DataError for an unknown run.
        """
        from hwnas_sdk.workflows.report import write_run_report

        if isinstance(what, Verdict):
            run_id = what.run_id
        else:
            run_id = what if isinstance(what, str) else what.run.id
        return write_run_report(self.store, run_id, Path(path))

    def verdict(self, run_id: str) -> Verdict:
        """Stored verdict of a verify run.

        Raises: DataError when the run has none.
        """
        run = self.store.get_run(run_id)
        if run.result is None:
            raise DataError(f"run {run.id} has no verdict", code="no_result")
        return verdict_from_mapping(run.result)


def _text(thing: Architecture | Path | str) -> str:
    """What a person would type for it."""
    if isinstance(thing, Architecture):
        return get_space(thing.space).encode(thing)
    return str(thing)
