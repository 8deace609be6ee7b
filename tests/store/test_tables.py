"""Reading public tables: joins, missing values, errors that say what to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.tables import load_tables

SPACE = NasBench201()
INDICES = list(range(200, 260))
STRINGS = [SPACE.encode(SPACE.from_index(i)) for i in INDICES]


def write(folder, name, **columns):
    folder.mkdir(exist_ok=True)
    columns.setdefault("index", INDICES)
    columns.setdefault("arch", STRINGS)
    pq.write_table(pa.table(columns), folder / name)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tables"
    accuracies = [10.0 if SPACE.is_dead(SPACE.from_index(i)) else 90.0 for i in INDICES]
    write(path, "nasbench201.parquet", cifar10_test_acc=accuracies)
    write(path, "nasbench201_latency.parquet", phone=[float(i) for i in INDICES])
    return path


def test_rows_carry_their_genotypes(folder):
    tables = load_tables([folder])
    assert tables.index.tolist() == INDICES
    expected = [SPACE.from_index(i).genotype for i in INDICES]
    assert tables.genotypes.tolist() == [list(cell) for cell in expected]
    np.testing.assert_array_equal(tables.device("phone"), INDICES)
    assert tables.live.tolist() == [not SPACE.is_dead(SPACE.from_index(i)) for i in INDICES]


def test_families_come_from_the_space_or_from_the_table(folder):
    computed = load_tables([folder]).families
    keys = [SPACE.family(SPACE.from_index(i)) for i in INDICES]
    assert len(set(computed.tolist())) == len(set(keys))
    write(
        folder,
        "nasbench201.parquet",
        cifar10_test_acc=[90.0] * len(INDICES),
        function_family_rep_index=[7] * len(INDICES),
    )
    assert set(load_tables([folder]).families.tolist()) == {7}


def test_missing_values_are_nan_and_rows_join_by_index(folder):
    write(
        folder,
        "nasbench201_hwnasbench_latency.parquet",
        index=INDICES[:3][::-1],
        arch=STRINGS[:3][::-1],
        cifar10_tpu_latency_ms=[3.0, None, 1.0],
    )
    write(folder, "nasbench201_hwnasbench_energy.parquet", cifar10_tpu_energy_mj=[-1.0, 2.0] * 30)
    tables = load_tables([folder])
    latency = tables.device("cifar10_tpu")
    assert latency[0] == 1.0
    assert np.isnan(latency[1])
    assert latency[2] == 3.0
    assert np.isnan(latency[3:]).all()
    energy = tables.device("cifar10_tpu", metric="energy")
    assert np.isnan(energy[0])
    assert energy[1] == 2.0


def test_later_folders_add_devices(folder, tmp_path):
    write(tmp_path / "more", "nasbench201_latency.parquet", board=[1.0] * 60, phone=[2.0] * 60)
    tables = load_tables([folder, tmp_path / "more"])
    assert sorted(tables.latency_ms) == ["board", "phone"]
    assert set(tables.device("phone").tolist()) == {2.0}


def test_unknown_names_list_what_there_is(folder):
    tables = load_tables([folder])
    with pytest.raises(ConfigError, match="phone"):
        tables.device("tablet")
    with pytest.raises(ConfigError, match="cifar10"):
        tables.error_pct("mnist")
    with pytest.raises(ConfigError, match="latency or energy"):
        tables.metric("power")
    with pytest.raises(DataError, match="hwnasbench_energy"):
        tables.metric("energy")


@pytest.mark.parametrize("name", ["nasbench201.parquet", "nasbench201_latency.parquet"])
def test_a_missing_table_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=name) as caught:
        load_tables([folder])
    assert "MIT" in caught.value.hint


def test_damaged_tables_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        load_tables([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no data folder"):
        load_tables([])
    write(folder, "nasbench201_latency.parquet", arch=STRINGS[::-1], phone=[1.0] * 60)
    with pytest.raises(DataError, match="official index"):
        load_tables([folder])
    write(folder, "nasbench201_latency.parquet", phone=["slow"] * 60)
    with pytest.raises(DataError, match="not numeric"):
        load_tables([folder])
    (folder / "nasbench201_latency.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read"):
        load_tables([folder])
    write(folder, "nasbench201.parquet", arch=["|none~0|"] * 60)
    with pytest.raises(DataError, match="not a nasbench201 cell"):
        load_tables([folder])


@pytest.mark.data
def test_public_tables_match_the_space(shared_data):
    tables = load_tables([shared_data])
    np.testing.assert_array_equal(tables.genotypes, SPACE.all_genotypes())
    assert int(tables.live.sum()) == 15_284
    assert len(set(tables.families.tolist())) == 5_044
    assert int(np.isnan(tables.device("cifar10_edgetpu")).sum()) == 4_699
