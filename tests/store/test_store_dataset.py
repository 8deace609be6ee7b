from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_records import DEVICE, artifact, blocks_ns, fresh, put_arch, record

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.dataset import LabelledDataset, build_dataset, split_by_family
from hwnas_sdk.store.sqlite import MeasurementStore

SPACE = get_space("nasbench201")
A, B, C = (0, 1, 2, 3, 4, 0), (0, 1, 2, 3, 4, 1), (4, 0, 0, 0, 0, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasurementStore]:
    with fresh(tmp_path / "store.sqlite") as opened:
        yield opened


def add(store: MeasurementStore, genotype: tuple[int, ...], latency_ms: float, **changes) -> None:
    """One measurement in a run of its own."""
    kind = f"run {store.info()['counts']['run']}"
    run = store.start_run(kind, {})
    arch_id = put_arch(store, genotype)
    values = {"latency_ms": latency_ms, "arch_id": arch_id, "artifact_sha256": "", **changes}
    assert store.add(record(run.id, arch_id, **values), blocks_ns(1))


def fails(code: str) -> pytest.RaisesExc:
    return pytest.RaisesExc(DataError, check=lambda exc: exc.code == code and bool(exc.hint))


def test_repeated_labels_become_their_median(store: MeasurementStore) -> None:
    for genotype, latency_ms in ((C, 9.0), (A, 3.0), (A, 1.0), (A, 1.5), (B, 5.0)):
        add(store, genotype, latency_ms)
    dataset = build_dataset(store, device_id=DEVICE.id)
    assert dataset.genotypes.tolist() == [list(A), list(B), list(C)]
    assert dataset.arch_ids[0] == "nasbench201:0-1-2-3-4-0"
    assert dataset.values.tolist() == [1.5, 5.0, 9.0]
    assert dataset.ci95 == (1.0, 0.01, 0.01)  # repeats that disagree by 2 ms
    assert len(dataset) == 3
    counts = dataset.manifest["counts"]
    assert counts == {"architectures": 3, "measurements": 5, "combined": 1, "left_out": {}}
    assert dataset.manifest["combine"] == "median"
    assert json.loads(json.dumps(dataset.manifest)) == dataset.manifest


def test_an_unknown_interval_stays_unknown(store: MeasurementStore) -> None:
    add(store, A, 1.0)
    add(store, A, 1.2, ci95_ms=None)
    assert build_dataset(store, device_id=DEVICE.id).ci95 == (None,)


def test_invalid_and_emulated_rows_never_come_out(store: MeasurementStore) -> None:
    add(store, A, 1.0)
    add(store, B, 2.0, flags=("contended",))
    add(store, C, 3.0, flags=("emulated",))
    dataset = build_dataset(store, device_id=DEVICE.id)
    assert dataset.genotypes.tolist() == [list(A)]
    assert dataset.manifest["counts"]["left_out"] == {"emulated": 1, "invalid": 1}
    emulated = dataclasses.replace(DEVICE, id="qemu", machine="emulated")
    store.put_device(emulated)
    add(store, A, 1.0, device_id="qemu")
    with fails("emulated_device"):
        build_dataset(store, device_id="qemu")


def test_virtualised_machines_are_allowed_and_labelled(store: MeasurementStore) -> None:
    store.put_device(dataclasses.replace(DEVICE, machine="virtualised"))
    add(store, A, 1.0, flags=("virtualised",))
    manifest = build_dataset(store, device_id=DEVICE.id).manifest
    assert manifest["device"]["machine"] == "virtualised"


def test_users_files_are_no_members_of_a_space(store: MeasurementStore) -> None:
    add(store, A, 1.0)
    store.put_architecture("file:ab", space="file", arch="x.onnx", genotype=())
    run = store.start_run("measure", {})
    store.add(record(run.id, "x", arch_id="file:ab", artifact_sha256=""), blocks_ns(1))
    dataset = build_dataset(store, device_id=DEVICE.id)
    assert dataset.arch_ids == ("nasbench201:0-1-2-3-4-0",)
    assert dataset.manifest["counts"]["left_out"] == {"user_file": 1}
    files = build_dataset(store, device_id=DEVICE.id, space="file")
    assert (files.arch_ids, files.genotypes.shape) == (("file:ab",), (1, 0))


@pytest.mark.parametrize("name", ["origin", "threads", "runtime", "batch"])
def test_different_quantities_are_not_mixed(store: MeasurementStore, name: str) -> None:
    add(store, A, 1.0)
    if name == "origin":
        add(store, B, 2.0, origin="imported")
        chosen: object = "imported"
    else:
        chosen = {"threads": 2, "runtime": "tvm", "batch": 8}[name]
        other = settings_preset("quick", **{name: chosen})
        store.put_settings(other)
        add(store, B, 2.0, settings_id=other.id)
    with fails("ambiguous_dataset") as caught:
        build_dataset(store, device_id=DEVICE.id)
    assert f"differ in {name}" in str(caught.value)
    dataset = build_dataset(store, device_id=DEVICE.id, **{name: chosen})
    assert dataset.values.tolist() == [2.0]
    assert dataset.manifest["quantity"][name] == chosen
    assert dataset.manifest["filters"][name] == chosen


def test_folded_and_unfolded_are_not_mixed(store: MeasurementStore) -> None:
    arch_id = put_arch(store, A)
    for sha256, folded in (("01" * 32, True), ("02" * 32, False)):
        store.put_artifact(artifact(sha256, arch_id=arch_id, folded=folded))
        add(store, A, 1.0 + folded, artifact_sha256=sha256)
    with fails("ambiguous_dataset"):
        build_dataset(store, device_id=DEVICE.id)
    assert build_dataset(store, device_id=DEVICE.id, folded=True).values.tolist() == [2.0]
    dataset = build_dataset(store, device_id=DEVICE.id, folded=False)
    assert dataset.values.tolist() == [1.0]
    assert dataset.manifest["quantity"]["folded"] is False


def test_two_precisions_of_one_quantity_are_one_data_set(store: MeasurementStore) -> None:
    add(store, A, 1.0)
    precise = settings_preset("standard")
    store.put_settings(precise)
    add(store, B, 2.0, settings_id=precise.id)
    dataset = build_dataset(store, device_id=DEVICE.id)
    assert dataset.values.tolist() == [1.0, 2.0]
    assert dataset.manifest["settings"] == ["quick", "standard"]
    only = build_dataset(store, device_id=DEVICE.id, settings_id=precise.id)
    assert only.values.tolist() == [2.0]


def test_other_metrics(store: MeasurementStore) -> None:
    add(store, A, 1.0, peak_memory_mib=30.0)
    add(store, B, 2.0)
    dataset = build_dataset(store, device_id=DEVICE.id, metric="peak_memory_mib")
    assert (dataset.values.tolist(), dataset.ci95) == ([30.0], (None,))
    assert dataset.manifest["counts"]["left_out"] == {"without_value": 1}
    with fails("unknown_metric"):
        build_dataset(store, device_id=DEVICE.id, metric="speed")


def test_nothing_to_learn_from_is_said(store: MeasurementStore) -> None:
    with fails("unknown_device"):
        build_dataset(store, device_id="nobody")
    with fails("empty_dataset"):
        build_dataset(store, device_id=DEVICE.id)
    add(store, A, 1.0, flags=("steal",))
    with fails("empty_dataset") as caught:
        build_dataset(store, device_id=DEVICE.id)
    assert "1 invalid" in str(caught.value)


def test_the_hash_names_the_rows(tmp_path: Path) -> None:
    """Equal rows stored in another order give the same data set, a changed row another."""
    rows = [(A, 1.0), (A, 1.25), (B, 2.0), (C, 3.0)]
    hashes = set()
    for number in range(3):
        with fresh(tmp_path / f"{number}.sqlite") as store:
            for genotype, latency_ms in random.Random(number).sample(rows, len(rows)):
                add(store, genotype, latency_ms)
            dataset = build_dataset(store, device_id=DEVICE.id)
            again = build_dataset(store, device_id=DEVICE.id)
            assert dataset.manifest_sha256 == again.manifest_sha256
            hashes.add(tuple(dataset.values))
            before = dataset.manifest["rows_sha256"]
            add(store, C, 3.0)
            assert build_dataset(store, device_id=DEVICE.id).manifest["rows_sha256"] != before
    assert len(hashes) == 1


# --- splits ---------------------------------------------------------------------------------------


def dataset_of(genotypes: list[tuple[int, ...]]) -> LabelledDataset:
    n = len(genotypes)
    return LabelledDataset(
        tuple(f"nasbench201:{'-'.join(map(str, g))}" for g in genotypes),
        np.array(genotypes, dtype=np.int64),
        np.arange(n, dtype=np.float64),
        (None,) * n,
        {"counts": {"architectures": n}, "split": None},
    )


genotype_sets = st.lists(
    st.tuples(*(st.integers(0, 4),) * 6), min_size=2, max_size=60, unique=True
).map(sorted)


@settings(max_examples=50)
@given(genotype_sets, st.floats(0.01, 0.99), st.integers(0, 9))
def test_no_family_is_on_both_sides(
    genotypes: list[tuple[int, ...]], test_fraction: float, seed: int
) -> None:
    dataset = dataset_of(genotypes)
    families = [SPACE.family(SPACE.architecture(g)) for g in genotypes]
    if len(set(families)) == 1:
        with fails("bad_split"):
            split_by_family(dataset, SPACE, test_fraction, np.random.default_rng(seed))
        return
    train, test = split_by_family(dataset, SPACE, test_fraction, np.random.default_rng(seed))
    assert len(train) > 0
    assert len(test) > 0
    assert sorted([*train.arch_ids, *test.arch_ids]) == sorted(dataset.arch_ids)
    sides = [
        {SPACE.family(SPACE.architecture(g)) for g in side.genotypes} for side in (train, test)
    ]
    assert not sides[0] & sides[1]
    for side in (train, test):
        for arch_id, genotype, value in zip(
            side.arch_ids, side.genotypes, side.values, strict=True
        ):
            i = dataset.arch_ids.index(arch_id)
            assert (genotype == dataset.genotypes[i]).all()
            assert value == i
    again, _ = split_by_family(dataset, SPACE, test_fraction, np.random.default_rng(seed))
    assert again.arch_ids == train.arch_ids
    assert again.manifest_sha256 == train.manifest_sha256 != test.manifest_sha256


def test_the_share_is_close_to_what_was_asked() -> None:
    architectures = SPACE.sample(400, seed=1)
    dataset = dataset_of(sorted(a.genotype for a in architectures))
    for test_fraction in (0.1, 0.25, 0.5):
        _, test = split_by_family(dataset, SPACE, test_fraction, np.random.default_rng(0))
        assert len(test) / 400 == pytest.approx(test_fraction, abs=0.02)
        assert test.manifest["split"]["side"] == "test"
        assert test.manifest["counts"]["architectures"] == len(test)


@pytest.mark.parametrize("test_fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_is_inside_zero_and_one(test_fraction: float) -> None:
    with pytest.raises(DataError):
        split_by_family(dataset_of([A, C]), SPACE, test_fraction, np.random.default_rng(0))
