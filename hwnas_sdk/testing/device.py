"""What every device session must do, as tests.

Inherit and say how to open one::

    class TestMyBoard(DeviceConformance):
        def open(self):
            return open_session("my-board")

        def items(self, n):
            return [JobItem(...), ...]
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.events import Event
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Artifact, Measurement
from hwnas_sdk.devices.jobs import JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.devices.session import DeviceSession

TINY = MeasureSettings(
    name="custom",
    warmup_min_s=0.005,
    warmup_min_runs=4,
    warmup_max_s=0.2,
    warmup_group_runs=4,
    block_min_s=0.004,
    block_min_runs=4,
    min_blocks=3,
    max_blocks=5,
    max_timed_s=0.1,
)
"""Settings that are over in a moment; good enough to test behaviour, not to measure."""


class DeviceConformance(ABC):
    """Inherit in a test module; pytest collects the tests for your device."""

    @abstractmethod
    def open(self) -> DeviceSession:
        """Open a new session with the device."""

    @abstractmethod
    def items(self, n: int) -> Sequence[JobItem]:
        """Return `n` different networks the device can measure."""

    def bad_item(self) -> JobItem:
        """Return a network the device cannot measure, by default one whose file is missing."""
        good = self.items(1)[0]
        nowhere = Artifact(
            sha256="0" * 64,
            format="onnx",
            arch_id="file:000000000000",
            folded=False,
            producer="nobody",
            size_bytes=1,
            path="/nonexistent/nothing.onnx",
        )
        return replace(good, item="bad", arch_id=nowhere.arch_id, arch="nothing", artifact=nowhere)

    def job(self, name: str, n: int = 2, extra: Sequence[JobItem] = ()) -> MeasureJob:
        """Return a small job over `n` networks, with a sentinel where artifacts are needed."""
        items = (*self.items(n), *extra)
        return MeasureJob(name, items, TINY, items[0].artifact, seed=1)

    def records(
        self, session: DeviceSession, job: MeasureJob, result: JobResult
    ) -> list[Measurement]:
        """Measurements of `result`."""
        return [
            measurement
            for measurement, _ in measurements_of(
                job,
                result,
                spec=session.spec,
                origin=session.origin,
                baseline_sentinel_ms=None,
                run_id="conformance",
                attempt_of=lambda _item: 1,
            )
        ]

    def test_describes_itself(self) -> None:
        """The spec names the device, and the probe is plain JSON."""
        with self.open() as session:
            spec = session.spec
            assert re.fullmatch(re.escape(spec.name) + r"@[0-9a-f]{8}", spec.id)
            assert spec.family
            assert spec.soc
            assert spec.cores >= 1
            assert spec.runtimes
            assert (spec.power_source is None) == (spec.power_reason is not None)
            assert session.origin in {"measured", "simulated", "imported"}
            json.dumps(session.probe(), allow_nan=False)
            json.dumps(dict(spec.details), allow_nan=False)

    def test_identity_is_stable(self) -> None:
        """Two sessions see the same device."""
        with self.open() as session:
            first = session.spec
        with self.open() as session:
            assert session.spec.id == first.id

    def test_measures_every_item(self) -> None:
        """Results come in the order of the items, with positive finite latencies."""
        events: list[Event] = []
        with self.open() as session:
            job = self.job("conformance-all", n=3)
            result = session.measure(job, on_event=events.append)
            assert result.job_id == job.id
            assert result.outcome == "done"
            assert [entry.item for entry in result.items] == [entry.item for entry in job.items]
            assert not [entry.error_code for entry in result.items if entry.error_code]
            records = self.records(session, job, result)
            session.forget(job.id)
        assert len(records) == 3
        for record in records:
            assert record.latency_ms is not None
            assert 0.0 < record.latency_ms < 1e6
            assert record.origin == session.origin
            assert record.device_id == session.spec.id
            assert record.measured_at
            json.dumps([dict(record.details), dict(record.environment)], allow_nan=False)
        steps = [event for event in events if event.total == 3]
        assert steps
        assert steps[-1].done == 3

    def test_raw_samples_or_summary(self) -> None:
        """A device gives raw samples or says that it has summaries only, never both."""
        with self.open() as session:
            job = self.job("conformance-raw")
            result = session.measure(job)
            session.forget(job.id)
            for entry, record in zip(result.items, self.records(session, job, result), strict=True):
                assert bool(entry.blocks) != (entry.summary_latency_ms is not None)
                assert ("summary_only" in record.flags) == (not entry.blocks)
                assert record.n_samples == sum(block.samples_ns.size for block in entry.blocks)
                if entry.blocks:
                    assert len(entry.blocks) >= job.settings.min_blocks
                    assert all(block.samples_ns.min() > 0 for block in entry.blocks)

    def test_bad_item_fails_alone(self) -> None:
        """One network that cannot run gets a code; the others are measured."""
        with self.open() as session:
            job = self.job("conformance-bad", extra=[self.bad_item()])
            result = session.measure(job)
            session.forget(job.id)
            *good, bad = result.items
            assert bad.error_code
            assert bad.error_message
            assert all(entry.error_code is None for entry in good)
            records = self.records(session, job, result)
            assert [record.status for record in records][-1] == "invalid"
            assert records[-1].latency_ms is None

    def test_unknown_job_is_not_recovered(self) -> None:
        """A job the device never saw is None, and forgetting it is fine."""
        with self.open() as session:
            job = self.job("conformance-unknown")
            assert session.recover(job) is None
            session.forget(job.id)

    def test_recovers_until_forgotten(self) -> None:
        """What is recovered equals what was measured; a forgotten job is unknown."""
        with self.open() as session:
            job = self.job("conformance-recover")
            result = session.measure(job)
        with self.open() as session:
            again = session.recover(job)
            assert again is None or (again.items, again.sentinel) == (result.items, result.sentinel)
            session.forget(job.id)
            assert session.recover(job) is None

    def test_clean_keeps_what_is_named(self) -> None:
        """Cleaning removes only what is not kept, and the device works on."""
        with self.open() as session:
            job = self.job("conformance-clean")
            session.measure(job)
            keep = {entry.artifact.sha256 for entry in job.items[:1] if entry.artifact}
            session.clean(keep)
            assert session.clean(keep).files == 0
            session.forget(job.id)
            again = self.job("conformance-clean-2")
            assert all(entry.error_code is None for entry in session.measure(again).items)
            session.forget(again.id)

    def test_closed_session_refuses(self) -> None:
        """Closing twice is fine, using a closed session is an error of ours."""
        session = self.open()
        session.close()
        session.close()
        with pytest.raises(DeviceError) as caught:
            session.measure(self.job("conformance-closed"))
        assert caught.value.code == "session_closed"
