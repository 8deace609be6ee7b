"""Measuring many networks on one device so that nothing is lost and nothing is done twice.

Done is derived from the store: an item of a run is done when its valid measurement is there. Work
is handed to the board in jobs of `settings.group_size` networks. A job is written to the store
before the board hears of it and struck off after its results are stored, so a host that was killed
finds its open jobs again and asks the board's journal for what became of them.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import DeviceError, MeasurementError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Architecture, Artifact, Measurement
from hwnas_sdk.devices.jobs import ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.workflows.reference import expected_output
from hwnas_sdk.workflows.runtime import ArtifactMaker

MAX_ATTEMPTS = 3
BROKEN_OFF = frozenset({"truncated", "cancelled"})
BOARD_FAILURES = frozenset(
    {
        "no_space",
        "work_dir",
        "runtime_missing",
        "runtime_hung",
        "provider_missing",
        "lease_lost",
        "internal",
    }
)
"""What is wrong with the board, not with a network; it uses up no attempt."""
SENTINEL_ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"  # noqa: E501


@dataclass(frozen=True, slots=True)
class Target:
    """One network to measure.

    Attributes:
        item: key inside the run; the same key is measured once.
        arch_id: identity of the architecture or file.
        arch: what a person calls it (official string or file name).
        make_artifact: returns the deployable file; called only when it is needed.
        architecture: the architecture, None for a user's own file.
        folded: which form of the architecture.
    """

    item: str
    arch_id: str
    arch: str
    make_artifact: Callable[[], Artifact]
    architecture: Architecture | None = None
    folded: bool = False


def architecture_target(
    space: SearchSpace,
    architecture: Architecture,
    *,
    cache: ArtifactCache,
    folded: bool,
    batch: int = 1,
    prefix: str = "",
) -> Target:
    """Target for a member of a space, exported with seeded random weights when needed."""

    def make() -> Artifact:
        return export_architecture(space, architecture, cache=cache, folded=folded, batch=batch)

    arch = space.encode(architecture)
    kind = "folded" if folded else "unfolded"
    item = f"{prefix}{architecture.id}/{kind}"
    return Target(item, architecture.id, arch, make, architecture, folded)


def standard_sentinel(session: DeviceSession, cache: ArtifactCache) -> Artifact | None:
    """The reference network measured beside every job; None on devices that run no files."""
    if not session.needs_artifacts:
        return None
    space = get_space("nasbench201")
    return export_architecture(space, space.decode(SENTINEL_ARCH), cache=cache, folded=False)


def artifact_target(artifact: Artifact, name: str, *, prefix: str = "") -> Target:
    """Target for a file that exists already."""
    item = f"{prefix}{artifact.arch_id}"
    return Target(item, artifact.arch_id, name, lambda: artifact)


@dataclass
class BoardTime:
    """Board seconds spent, by what they were spent on, and how many there may be.

    `earlier_s` was spent by processes that were killed, the rest by this one. `host_s` is wall time
    of the whole work; `overhead_s` is what neither warm-up nor timed inference (sentinels included)
    explains.
    """

    limit_s: float | None = None
    earlier_s: float = 0.0
    warmup_s: float = 0.0
    timed_s: float = 0.0
    sentinel_s: float = 0.0
    load_s: float = 0.0
    wall_s: float = 0.0
    host_s: float = 0.0
    n_networks: int = 0

    def add(self, result: JobResult) -> None:
        """Book one job."""
        self.warmup_s += result.warmup_s
        self.timed_s += result.timed_s
        self.sentinel_s += result.sentinel_s
        self.load_s += result.load_s
        self.wall_s += result.wall_s
        self.n_networks += len(result.items)

    @property
    def busy_s(self) -> float:
        """Seconds of warm-up and timed inference, the sentinel's included."""
        return self.warmup_s + self.timed_s + self.sentinel_s

    @property
    def overhead_s(self) -> float:
        """Wall seconds that were neither warm-up nor timed inference."""
        return max(0.0, self.host_s - self.busy_s)

    @property
    def total_s(self) -> float:
        """Board seconds of the whole run."""
        return self.earlier_s + self.wall_s

    @property
    def spent(self) -> bool:
        """Whether the limit is reached."""
        return self.limit_s is not None and self.total_s >= self.limit_s


@dataclass
class Measurer:
    """Measures targets on one device inside one run.

    Args:
        store: where results go; the only memory.
        session: an open device.
        run_id: the run all items belong to.
        settings: how to measure.
        sentinel: reference network measured beside each job to see drift, or None.
        baseline_ms: its latency when all was well; None takes it from the run's first valid record.
        check_outputs: compare each network's answer with this host's; costs one inference here.
        seed: seeds the block order.
        on_event: hears of progress.
        maker: makes what the device's runtime runs of the ONNX files of targets and sentinel.
        time, jobs: what this object measured itself (not what earlier processes stored).
    """

    store: MeasurementStore
    session: DeviceSession
    run_id: str
    settings: MeasureSettings
    sentinel: Artifact | None = None
    baseline_ms: float | None = None
    check_outputs: bool = False
    seed: int = 0
    on_event: EventSink = ignore
    maker: ArtifactMaker = field(default_factory=ArtifactMaker)
    clock: Clock = SYSTEM_CLOCK
    time: BoardTime = field(default_factory=BoardTime)
    jobs: list[JobResult] = field(default_factory=list)

    def measure(self, targets: Sequence[Target], *, task: str) -> dict[str, Measurement]:
        """Measure what is not done yet; return the measurement of each target by item.

        Invalid records are taken again, twice at most, and then kept as invalid. Targets that a
        spent board-time limit left out are absent from the result.

        Raises: DeviceError when the board fails; what it finished before that is stored.
        """
        started_s = self.clock.monotonic_s()
        try:
            return self._measure(targets, task)
        finally:
            self.maker.close()
            self.time.host_s += self.clock.monotonic_s() - started_s

    def _measure(self, targets: Sequence[Target], task: str) -> dict[str, Measurement]:
        self.store.put_device(self.session.spec)
        self.store.put_settings(self.settings)
        self._remember()
        self.recover()
        wanted = {target.item: target for target in targets}
        while True:
            done = self.store.done_items(self.run_id)
            open_items = [
                item
                for item in wanted
                if item not in done and self.store.attempts(self.run_id, item) < MAX_ATTEMPTS
            ]
            self._progress(task, len(wanted) - len(open_items), len(wanted))
            if not open_items or self.time.spent:
                break
            self._run_job([wanted[item] for item in open_items[: self.settings.group_size]])
        return self.results(wanted)

    def _remember(self) -> None:
        """Take over what earlier processes of this run measured: the baseline, the time spent."""
        stored = self.store.measurements(run_id=self.run_id)
        if self.baseline_ms is None:
            self.baseline_ms = _sentinel_ms([m for m in stored if m.status == "valid"][:1])
        mine = {job.job_id for job in self.jobs}
        self.time.earlier_s = sum(
            {
                m.details["job"]: float(m.details["job_wall_s"])
                for m in stored
                if m.details.get("job") not in mine
            }.values()
        )

    def results(self, items: Iterable[str]) -> dict[str, Measurement]:
        """Stored measurement of each item: the valid one, else the last attempt."""
        best: dict[str, Measurement] = {}
        for measurement in self.store.measurements(run_id=self.run_id):
            known = best.get(measurement.item)
            if known is None or known.status == "invalid":
                best[measurement.item] = measurement
        return {item: best[item] for item in items if item in best}

    def recover(self) -> int:
        """Fetch what the board finished for jobs of this run that the host never stored.

        Returns the number of jobs found again.
        """
        found = 0
        for job_id, payload in self.store.open_jobs(run_id=self.run_id):
            job = MeasureJob.from_json(payload["job"])
            self._say(f"asking {self.session.spec.name} what became of an interrupted job")
            result = self.session.recover(job, on_event=self.on_event)
            whole = result and finished_items(result)
            if whole:
                found += 1
                environment = {**whole.environment, "measured_at": payload["started_at"]}
                whole = replace(whole, environment=environment)
                self._keep(job, whole, payload["attempts"])
            self.store.close_job(job_id)
            self.session.forget(job_id)
        return found

    def _run_job(self, targets: Sequence[Target]) -> None:
        items = []
        for number, target in enumerate(targets):
            if self.maker.compiles:
                self._progress(f"compile for {self.session.spec.name}", number, len(targets))
            source = target.make_artifact() if self.session.needs_artifacts else None
            artifact = self._made(source, target.arch)
            self._register(target, artifact)
            expected = expected_output(source) if source and self.check_outputs else None
            items.append(
                JobItem(
                    target.item,
                    target.arch_id,
                    target.arch,
                    artifact,
                    expected,
                    folded=target.folded,
                )
            )
        needed = self.sentinel if self.session.needs_artifacts else None
        sentinel = self._made(needed, "the sentinel")
        job = MeasureJob(uuid.uuid4().hex, tuple(items), self.settings, sentinel, self.seed)
        attempts = {
            item.item: self.store.attempts(self.run_id, item.item) + 1 for item in job.items
        }
        started_at = self.clock.now().isoformat(timespec="milliseconds")
        payload: dict[str, Any] = {
            "job": job.to_json(),
            "attempts": attempts,
            "started_at": started_at,
        }
        self.store.put_job(
            job.id, run_id=self.run_id, device_id=self.session.spec.id, payload=payload
        )
        result = self.session.measure(job, on_event=self.on_event)
        if result.outcome == "crashed":  # the board's agent was ended: the rest is simply open
            result = finished_items(result) or result
        self._keep(job, result, attempts)
        self.store.close_job(job.id)
        self.session.forget(job.id)

    def _keep(self, job: MeasureJob, result: JobResult, attempts: Mapping[str, int]) -> None:
        self.time.add(result)
        self.jobs.append(result)
        failures = [item for item in result.items if _is_board_failure(item)]
        failed = failures[0] if failures else None
        result = replace(result, items=tuple(i for i in result.items if i not in failures))
        records = measurements_of(
            job,
            result,
            spec=self.session.spec,
            origin=self.session.origin,
            baseline_sentinel_ms=self.baseline_ms,
            run_id=self.run_id,
            attempt_of=attempts.__getitem__,
        )
        for measurement, samples_ns in records:
            self.store.add(measurement, samples_ns)
        if failed is not None:
            self.store.close_job(job.id)
            raise DeviceError(
                f"{self.session.spec.name}: {failed.error_message}",
                device_id=self.session.spec.id,
                code=failed.error_code,
                hint="mend the board (see `hwnas doctor`) and give the same command again",
                retryable=True,
            )
        if not records:
            raise MeasurementError(
                f"{self.session.spec.name} finished a job without a single result",
                device_id=self.session.spec.id,
                hint="run it again with -v, or look at the board with `hwnas doctor`",
                retryable=True,
            )
        if self.baseline_ms is None:
            self.baseline_ms = _sentinel_ms([m for m, _ in records if m.status == "valid"])

    def _made(self, source: Artifact | None, name: str) -> Artifact | None:
        """What the device runs for a file; one that is compiled already stays as it is."""
        if source is None or source.format != "onnx":
            return source
        return self.maker.make(source, name)

    def _register(self, target: Target, artifact: Artifact | None) -> None:
        arch = target.architecture
        self.store.put_architecture(
            target.arch_id,
            space=arch.space if arch else "file",
            arch=target.arch,
            genotype=arch.genotype if arch else (),
        )
        if artifact is not None:
            self.store.put_artifact(artifact)

    def _progress(self, task: str, done: int, total: int) -> None:
        self.on_event(Event(task, done, total))

    def _say(self, message: str) -> None:
        self.on_event(Event("device", message=message))


def finished_items(result: JobResult) -> JobResult | None:
    """Leave out the networks an interrupted job had not finished; None when nothing is left.

    They were not measured badly but not measured: a record would use up one of their attempts.
    """
    items = tuple(item for item in result.items if item.error_code not in BROKEN_OFF)
    return replace(result, items=items) if items else None


def _is_board_failure(item: ItemResult) -> bool:
    return item.error_code in BOARD_FAILURES and not item.blocks


def _sentinel_ms(measurements: Sequence[Measurement]) -> float | None:
    """Median sentinel latency beside `measurements`; None without one.

    Only valid records count: a baseline taken while the machine was busy would condemn every later
    record.
    """
    times = [ms for m in measurements for ms in m.details.get("sentinel_ms", ())]
    return statistics.median(times) if times else None
