from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.devices import JobItem, MeasureJob, measurements_of, open_session
from hwnas_sdk.testing.device import TINY


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "lat.parquet"
    pq.write_table(
        pa.table(
            {
                "index": [0, 1, 2, 3],
                "arch": ["a", "b", "c", "d"],
                "pi4": pa.array([1.5, None, float("nan"), 0.0], pa.float32()),
                "pi5": [1, 2, 3, 4],
                "pi4_energy": [10.0, 11.0, None, 13.0],
                "text": ["w", "x", "y", "z"],
            }
        ),
        path,
    )
    return path


def _job(*archs: str, energy: bool = False) -> MeasureJob:
    from dataclasses import replace

    items = tuple(JobItem(arch, f"t:{arch}", arch, None) for arch in archs)
    return MeasureJob("j", items, replace(TINY, energy=energy), None, 0)


def test_answers_from_the_table(table) -> None:
    with open_session(f"replay://{table}#pi5") as session:
        assert session.spec.name == "pi5"
        assert session.spec.machine == "bare"
        assert session.spec.family == "replay"
        assert not session.needs_artifacts
        job = _job("c", "a")
        result = session.measure(job)
        records = measurements_of(
            job,
            result,
            spec=session.spec,
            origin=session.origin,
            baseline_sentinel_ms=None,
            run_id="r",
            attempt_of=lambda _item: 2,
        )
    assert [record.latency_ms for record, _ in records] == [3.0, 1.0]
    record, samples = records[0]
    assert samples == []
    assert record.origin == "imported"
    assert record.flags == ("summary_only", "output_unchecked", "drift_unchecked")
    assert record.status == "valid"
    assert record.artifact_sha256 == ""
    assert record.n_samples == 0
    assert record.ci95_ms is None
    assert record.attempt == 2
    assert record.environment["column"] == "pi5"


@pytest.mark.parametrize("arch", ["b", "c", "d", "elsewhere"])
def test_missing_values_are_not_zero(table, arch) -> None:
    with open_session(f"replay://{table}#pi4") as session:
        (entry,) = session.measure(_job(arch)).items
    assert entry.error_code == "not_in_table"
    assert entry.summary_latency_ms is None
    assert arch in entry.error_message


def test_energy_from_a_column(table) -> None:
    with open_session(f"replay://{table}#pi5?energy=pi4_energy") as session:
        assert session.spec.power_source == "table"
        first, third = session.measure(_job("a", "c", energy=True)).items
    assert first.energy_mj == 10.0
    assert third.energy_mj is None
    assert third.energy_reason == "not_in_table"
    with open_session(f"replay://{table}?energy=pi4_energy&energy_table={table}#pi5") as session:
        assert session.measure(_job("a")).items[0].energy_mj == 10.0
    with open_session(f"replay://{table}#pi5") as session:
        assert session.measure(_job("a", energy=True)).items[0].energy_reason == "no_sensor"


def test_identity_is_the_content(table, tmp_path) -> None:
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(table.read_bytes())
    with open_session(f"replay://{table}#pi5") as one, open_session(f"replay://{copy}#pi5") as two:
        assert one.spec.id == two.spec.id
    with open_session(f"replay://{table}#pi4") as other:
        assert other.spec.id.split("@")[1] != one.spec.id.split("@")[1]


@pytest.mark.parametrize(
    ("suffix", "error", "match"),
    [
        ("#pi55", ConfigError, "no column 'pi55'.*pi5"),
        ("#text", ConfigError, "does not hold numbers"),
        ("", ConfigError, "names no table or no column"),
        ("#pi5?enery=x", ConfigError, "did you mean 'energy'"),
        ("#arch", ConfigError, "no column 'arch'"),
    ],
)
def test_bad_columns(table, suffix, error, match) -> None:
    with pytest.raises(error, match=match):
        open_session(f"replay://{table}{suffix}")


def test_bad_tables(table, tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        open_session(f"replay://{tmp_path}/none.parquet#pi4")
    assert caught.value.code == "table_missing"
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(table.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        open_session(f"replay://{cut}#pi4")
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.table({"arch": ["a", "a"], "x": [1.0, 2.0]}), twice)
    with pytest.raises(DataError, match="two values"):
        open_session(f"replay://{twice}#x")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"x": [1.0]}), foreign)
    with pytest.raises(ConfigError, match="no column 'arch'"):
        open_session(f"replay://{foreign}#x")


@pytest.mark.data
def test_public_table(shared_data) -> None:
    path = shared_data / "nasbench201_latency.parquet"
    arch = pq.read_table(path, columns=["arch", "raspi4"]).slice(7, 1).to_pylist()[0]
    with open_session(f"replay://{path}#raspi4") as session:
        assert session.spec.details["n_architectures"] == 15_625
        (entry,) = session.measure(_job(arch["arch"])).items
    assert entry.summary_latency_ms == pytest.approx(arch["raspi4"])
