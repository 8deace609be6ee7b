from __future__ import annotations

import dataclasses
import math
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_records import (
    ARCH,
    DEVICE,
    SETTINGS,
    SHA,
    artifact,
    blocks_ns,
    fails,
    fresh,
    record,
    registered,
)

from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING
from hwnas_sdk.core.settings import PRESETS, MeasureSettings
from hwnas_sdk.core.types import Measurement
from hwnas_sdk.store.sqlite import MeasurementStore

# --- round trip -----------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
positive = st.none() | st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False)
not_negative = st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
sample_blocks = st.lists(
    hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 2**63 - 1)), max_size=6
)


@st.composite
def measured(draw: st.DrawFn) -> tuple[Measurement, list[np.ndarray]]:
    blocks = draw(sample_blocks)
    measurement = Measurement(
        arch_id=ARCH,
        artifact_sha256=draw(st.sampled_from(["", SHA])),
        device_id=DEVICE.id,
        settings_id=SETTINGS.id,
        origin=draw(st.sampled_from(["measured", "simulated", "imported", "predicted"])),
        latency_ms=draw(positive),
        latency_p90_ms=draw(positive),
        latency_iqr_ms=draw(not_negative),
        ci95_ms=draw(not_negative),
        first_ms=draw(not_negative),
        load_ms=draw(not_negative),
        energy_mj=draw(positive),
        energy_net_mj=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        energy_reason=draw(st.none() | text),
        peak_memory_mib=draw(positive),
        n_samples=sum(map(len, blocks)),
        flags=tuple(draw(st.lists(st.sampled_from([*INVALIDATING, *INFORMATIVE]), max_size=4))),
        environment=draw(st.dictionaries(text, json_values, max_size=4)),
        details=draw(st.dictionaries(text, json_values, max_size=4)),
        measured_at=draw(text),
        item=draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)),
        attempt=draw(st.integers(1, 2**63 - 1)),
    )
    return measurement, blocks


@pytest.fixture(scope="module")
def shared_store() -> Iterator[MeasurementStore]:
    with tempfile.TemporaryDirectory() as folder, registered(Path(folder) / "s") as opened:
        yield opened


@settings(max_examples=60)
@given(measured())
def test_a_measurement_comes_back_as_it_went_in(
    shared_store: MeasurementStore, given: tuple[Measurement, list[np.ndarray]]
) -> None:
    measurement, blocks = given
    run = shared_store.start_run("round trip", {})
    item = f"{shared_store.info()['counts']['measurement']} {measurement.item}"
    measurement = dataclasses.replace(measurement, run_id=run.id, item=item)
    assert shared_store.add(measurement, blocks)
    back = shared_store.measurements(run_id=run.id)[-1]
    assert back == measurement
    assert back.status == measurement.status
    returned = shared_store.samples_ns(back)
    assert [block.tolist() for block in returned] == [block.tolist() for block in blocks]
    assert all(block.dtype == np.int64 for block in returned)


@settings(max_examples=8)
@given(st.lists(measured(), max_size=3))
def test_the_file_stays_sound_whatever_goes_in(
    given: list[tuple[Measurement, list[np.ndarray]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        with fresh(path) as store:
            run = store.start_run("one", {})
            for measurement, blocks in given:
                store.add(dataclasses.replace(measurement, run_id=run.id), blocks)
            assert store.check() == []
        with MeasurementStore.open(path, read_only=True) as store:
            assert store.check() == []


# --- refused rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latency_ms": math.nan}, "latency_ms = nan"),
        ({"latency_ms": 0.0}, "latency_ms = 0"),
        ({"ci95_ms": -1.0}, "ci95_ms = -1"),
        ({"energy_net_mj": math.inf}, "energy_net_mj = inf"),
        ({"peak_memory_mib": "much"}, "peak_memory_mib = 'much'"),
        ({"origin": "guessed"}, "unknown origin 'guessed'"),
        ({"flags": ("nonsense",)}, "unknown flag 'nonsense'"),
        ({"item": ""}, "item is empty"),
        ({"run_id": ""}, "run_id is empty"),
        ({"attempt": 0}, "attempt at least 1"),
        ({"n_samples": 1.5}, "float"),
        ({"n_samples": 199}, "200 raw samples but says n_samples = 199"),
        ({"environment": {"x": math.nan}}, "environment"),
        ({"details": {"x": {1, 2}}}, "details"),
        ({"details": {"x": "\udc80"}}, "details"),
        ({"measured_at": "\udc80"}, "measured_at is not text"),
    ],
)
def test_what_is_not_a_measurement_is_refused(
    store: MeasurementStore, changes: dict[str, object], says: str
) -> None:
    run = store.start_run("measure", {})
    with fails("bad_measurement") as caught:
        store.add(dataclasses.replace(record(run.id, "a"), **changes), blocks_ns(0))
    assert says in str(caught.value)
    assert store.measurements() == []


@pytest.mark.parametrize(
    "samples",
    [
        [np.array([[1, 2]])],
        [np.array([0.5])],
        [np.array([-1])],
        [np.array([2**63], dtype=np.uint64)],
        [np.array(["a"])],
    ],
)
def test_what_is_not_a_sample_is_refused(
    store: MeasurementStore, samples: list[np.ndarray]
) -> None:
    run = store.start_run("measure", {})
    with fails("bad_measurement"):
        store.add(record(run.id, "a", n_samples=1), samples)
    assert store.measurements() == []


def test_a_measured_number_without_its_samples_is_refused(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    with fails("bad_measurement"):
        store.add(record(run.id, "a"))
    assert store.add(record(run.id, "a", flags=("summary_only",)))
    assert store.add(record(run.id, "b", origin="imported", n_samples=0))
    assert store.samples_ns(store.measurements()[0]) == []
    assert store.check() == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"arch_id": "nasbench201:0"}, "architecture nasbench201:0"),
        ({"device_id": "d"}, "device d"),
        ({"settings_id": "s"}, "settings s"),
        ({"run_id": "r"}, "run r"),
        ({"artifact_sha256": "cd" * 32}, f"artifact {'cd' * 32}"),
    ],
)
def test_a_missing_reference_is_named(
    store: MeasurementStore, changes: dict[str, str], names: str
) -> None:
    run = store.start_run("measure", {})
    with fails("unknown_reference") as caught:
        store.add(dataclasses.replace(record(run.id, "a"), **changes), blocks_ns(0))
    assert names in str(caught.value)
    assert store.measurements() == []


# --- done, attempts, append-only ------------------------------------------------------------------


def test_adding_twice_stores_once(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    assert store.add(record(run.id, "a"), blocks_ns(1))
    assert not store.add(record(run.id, "a"), blocks_ns(2))
    assert not store.add(record(run.id, "a", attempt=2), blocks_ns(2))  # a second valid one
    (stored,) = store.measurements(run_id=run.id)
    assert [b.tolist() for b in store.samples_ns(stored)] == [b.tolist() for b in blocks_ns(1)]
    other = store.start_run("measure", {"other": True})
    assert store.add(record(other.id, "a"), blocks_ns(1))


def test_invalid_attempts_are_kept_until_a_valid_one(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    assert store.attempts(run.id, "a") == 0
    failed = record(run.id, "a", flags=("contended",))
    assert failed.status == "invalid"
    assert store.add(failed, blocks_ns(1))
    assert not store.add(failed, blocks_ns(1))
    assert store.add(dataclasses.replace(failed, attempt=2, latency_ms=None), blocks_ns(2))
    assert store.done_items(run.id) == {}
    assert store.attempts(run.id, "a") == 2
    good = record(run.id, "a", attempt=3)
    assert store.add(good, blocks_ns(3))
    assert store.done_items(run.id) == {"a": good}
    assert [m.attempt for m in store.measurements(run_id=run.id)] == [1, 2, 3]
    assert store.measurements(run_id=run.id, valid_only=True) == [good]
    with fails("unknown_measurement"):
        store.samples_ns(dataclasses.replace(good, attempt=4))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE measurement SET latency_ms = 1",
        "DELETE FROM measurement",
        "INSERT OR REPLACE INTO measurement SELECT * FROM measurement",
        "UPDATE samples SET data = x''",
        "DELETE FROM samples",
        "REPLACE INTO samples SELECT * FROM samples",
        "UPDATE run SET plan = '{}'",
        "DELETE FROM run",
        "DELETE FROM device",
        "UPDATE measurement SET origin = 'guessed'",
        (
            "INSERT INTO run (id, kind, plan, plan_hash, created_at)"
            " SELECT 'second', kind, plan, plan_hash, created_at FROM run"
        ),
    ],
)
def test_history_cannot_be_rewritten(store: MeasurementStore, statement: str) -> None:
    run = store.start_run("measure", {"n": 1})
    store.add(record(run.id, "a"), blocks_ns(1))
    with store.reading() as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert len(store.measurements()) == 1


def test_the_schema_itself_refuses_an_unknown_origin(store: MeasurementStore) -> None:
    run = store.start_run("measure", {})
    store.add(record(run.id, "a"), blocks_ns(1))
    with store.reading() as connection, pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        connection.execute(
            "INSERT INTO measurement (run_id, item, attempt, arch_id, device_id, settings_id,"
            " origin, status, n_samples, flags, environment, details, measured_at)"
            " SELECT run_id, 'b', 1, arch_id, device_id, settings_id, 'guessed', status, 0, flags,"
            " environment, details, measured_at FROM measurement"
        )


def test_commits_survive_power_loss_by_configuration(store: MeasurementStore) -> None:
    with store.reading() as connection:
        values = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values["journal_mode"] == "wal"
    assert values["synchronous"] >= 2  # FULL or more
    assert values["foreign_keys"] == 1
    assert values["busy_timeout"] >= 1000


# --- filters --------------------------------------------------------------------------------------


def test_filters_combine(store: MeasurementStore) -> None:
    run, other = store.start_run("a", {}), store.start_run("b", {})
    store.add(record(run.id, "1"), blocks_ns(1))
    store.add(record(run.id, "2", flags=("timeout",)), blocks_ns(1))
    store.add(record(other.id, "1", origin="imported", artifact_sha256="", n_samples=0))
    items = lambda **filters: [(m.run_id, m.item) for m in store.measurements(**filters)]  # noqa: E731
    assert items() == [(run.id, "1"), (run.id, "2"), (other.id, "1")]
    assert items(run_id=run.id, valid_only=True) == [(run.id, "1")]
    assert items(origin="imported") == [(other.id, "1")]
    assert items(artifact_sha256=SHA, valid_only=True) == [(run.id, "1")]
    assert items(device_id=DEVICE.id, arch_id=ARCH, settings_id=SETTINGS.id) == items()
    assert items(device_id="another") == []


# --- registry -------------------------------------------------------------------------------------


def test_putting_again_changes_nothing_and_writes_nothing(store: MeasurementStore) -> None:
    with store.reading() as connection:
        before = connection.total_changes
        for _ in range(3):
            store.put_architecture(
                ARCH, space="nasbench201", arch="|3-1-0-4-2-3|", genotype=(3, 1, 0, 4, 2, 3)
            )
            store.put_artifact(artifact())
            store.put_device(DEVICE)
            store.put_settings(SETTINGS)
        assert connection.total_changes == before
    assert store.devices() == [DEVICE]
    assert store.device(DEVICE.id) == DEVICE
    assert store.settings(SETTINGS.id) == SETTINGS
    assert store.architecture_text(ARCH) == "|3-1-0-4-2-3|"
    assert store.architecture_text("another") is None
    with fails("unknown_settings"):
        store.settings("another")
    with fails("unknown_device"):
        store.device("another")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_settings_come_back(store: MeasurementStore, preset: MeasureSettings) -> None:
    store.put_settings(preset)
    assert store.settings(preset.id) == preset


def test_an_architecture_id_means_one_architecture(store: MeasurementStore) -> None:
    with fails("conflict"):
        store.put_architecture(ARCH, space="nasbench201", arch="x", genotype=(0, 0, 0, 0, 0, 0))
    with fails("conflict"):
        store.put_architecture(ARCH, space="another", arch="x", genotype=(3, 1, 0, 4, 2, 3))


def test_a_file_may_be_renamed_and_an_artifact_moved(store: MeasurementStore) -> None:
    for name in ("old.onnx", "new.onnx"):
        store.put_architecture("file:abc", space="file", arch=name, genotype=())
    assert store.architecture_text("file:abc") == "new.onnx"
    store.put_artifact(dataclasses.replace(artifact(), path="elsewhere.onnx", arch_id="file:abc"))
    with store.reading() as connection:
        row = connection.execute("SELECT path, arch_id FROM artifact").fetchone()
    assert tuple(row) == ("elsewhere.onnx", ARCH)
    with fails("conflict"):
        store.put_artifact(dataclasses.replace(artifact(), size_bytes=11))
    with fails("unknown_reference"):
        store.put_artifact(artifact("cd" * 32, arch_id="nobody"))


def test_a_device_description_follows_the_device(store: MeasurementStore) -> None:
    newer = dataclasses.replace(DEVICE, name="shelf", runtimes={"ort": "1.21"})
    store.put_device(newer)
    assert store.devices() == [newer]
    with fails("bad_row"):
        store.put_device(dataclasses.replace(DEVICE, machine="imaginary"))


def test_an_emulated_device_with_numbers_stays_emulated(store: MeasurementStore) -> None:
    store.put_device(dataclasses.replace(DEVICE, machine="emulated"))
    store.put_device(DEVICE)  # nothing measured yet
    store.put_device(dataclasses.replace(DEVICE, machine="emulated"))
    run = store.start_run("measure", {})
    store.add(record(run.id, "a"), blocks_ns(1))
    with fails("conflict"):
        store.put_device(DEVICE)
    assert store.device(DEVICE.id).machine == "emulated"


def test_models_are_registered_by_content(store: MeasurementStore) -> None:
    card = {"name": "latency", "kind": "bayes", "schema": 1, "metrics": {"spearman": 0.96}}
    first = store.put_model(card, weights_sha256=SHA, path="a.safetensors")
    assert store.put_model(card, weights_sha256=SHA, path="b.safetensors") == first
    second = store.put_model({**card, "schema": 2}, weights_sha256=SHA)
    assert [model.id for model in store.models()] == [first, second]
    assert store.models("latency")[0].card == card
    assert store.models("latency")[0].path == "b.safetensors"
    assert store.models("another") == []
    with fails("bad_card"):
        store.put_model({"kind": "x"}, weights_sha256=SHA)
