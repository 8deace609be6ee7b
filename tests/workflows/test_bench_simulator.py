"""The simulator bench: its arithmetic by hand, its figures on the public tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.simulators.zigzag_engine import ArrayCost, ZigZagEngine
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows.bench_simulator import (
    coefficients,
    compare,
    operator_counts,
    run_bench_simulator,
)

SPACE = NasBench201()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """300 cells of a device where pooling costs as much as a 3x3 convolution."""
    folder = tmp_path_factory.mktemp("tables")
    index = np.arange(0, 15_000, 50)
    genes = SPACE.all_genotypes()[index]
    arch = [SPACE.encode(SPACE.architecture(cell)) for cell in genes]
    value = 1.0 + operator_counts(genes) @ [6.0, 1.0, 6.0]
    pq.write_table(
        pa.table({"index": index, "arch": arch, "cifar10_test_acc": np.full(len(index), 90.5)}),
        folder / "nasbench201.parquet",
    )
    for metric, unit in (("latency", "ms"), ("energy", "mj")):
        column = f"cifar10_eyeriss_{metric}_{unit}"
        pq.write_table(
            pa.table({"index": index, "arch": arch, column: value}),
            folder / f"nasbench201_hwnasbench_{metric}.parquet",
        )
    return folder


def test_ratios_by_hand() -> None:
    counts = operator_counts(SPACE.all_genotypes()[::7])
    truth = 2.0 + counts @ [6.0, 1.0, 5.0]
    solution, r2 = coefficients(truth, counts)
    assert solution == pytest.approx([2.0, 6.0, 1.0, 5.0])
    assert r2 == pytest.approx(1.0)
    figures = compare(1.0 + counts @ [10.0, 2.0, 10.0], truth, counts)
    assert figures["published_ratios"] == pytest.approx(
        {"conv3x3": 6.0, "conv1x1": 1.0, "avgpool": 5.0}
    )
    assert figures["cost_ratios"] == pytest.approx({"conv3x3": 5.0, "conv1x1": 1.0, "avgpool": 5.0})
    assert figures["worst_ratio_error_pct"] == pytest.approx(100 / 6)
    assert compare(truth, truth, counts)["mape_pct"] == pytest.approx(0.0)


def test_rows_without_a_value_are_left_out() -> None:
    counts = operator_counts(SPACE.all_genotypes()[::7])
    truth = 2.0 + counts @ [6.0, 1.0, 5.0]
    holed = truth.copy()
    holed[::3] = np.nan
    figures = compare(truth, holed, counts)
    assert figures["worst_ratio_error_pct"] == pytest.approx(0.0, abs=1e-6)


def test_both_conventions_from_one_pass(tables, monkeypatch) -> None:
    """With a cycle per multiply-accumulate a 3x3 convolution costs nine 1x1, pooling as said."""
    monkeypatch.setattr(
        ZigZagEngine,
        "evaluate",
        lambda _self, work: ArrayCost(
            cycles=float(work.macs), compute_cycles=float(work.macs), energy_pj=float(work.macs),
            outer_energy_pj=0.0, outer_bytes=2.0, unrolling="none", n_mappings=1,
        ),
    )  # fmt: skip
    answer = run_bench_simulator([tables], simulator="eyeriss", plots=tables / "plots")
    assert answer["pooling"] == "dense_conv"
    assert answer["latency"] == answer["conventions"]["dense_conv"]["latency"]
    ratios = answer["latency"]["cost_ratios"]
    assert ratios["conv3x3"] == pytest.approx(9.0, rel=0.05)
    assert ratios["avgpool"] == pytest.approx(9.0, rel=0.05)
    assert answer["conventions"]["modelled"]["latency"]["cost_ratios"]["avgpool"] < 0.1
    assert answer["n"] == 300
    assert answer["archs_per_s"] > 0
    assert all((tables / "plots" / name).is_file() for name in map(str, answer["plots"]))
    conv = next(row for row in answer["layers"] if row["op"] == "conv")
    assert conv["shape"] == "3x3, 3->16, 32x32"
    assert conv["latency_us"] == pytest.approx(conv["macs"] / 200)
    assert run_bench_simulator([tables], simulator="eyeriss", every=7)["n"] == 43
    with pytest.raises(DataError, match="cifar10_toaster"):
        run_bench_simulator([tables], simulator="eyeriss", table="toaster")
    with pytest.raises(ConfigError, match="data set"):
        run_bench_simulator([tables], simulator="eyeriss", dataset="mnist")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "dataset", "ratio_pct", "mape_pct", "energy_ratio_pct"),
    [
        ("eyeriss", "cifar10", 15.0, 20.0, 25.0),
        ("eyeriss", "imagenet16_120", 15.0, 20.0, 25.0),
        ("fpga", "cifar10", 20.0, 25.0, 20.0),
    ],
)
def test_the_published_ratios_follow_from_the_descriptions(
    shared_data, name, dataset, ratio_pct, mape_pct, energy_ratio_pct
) -> None:
    answer = run_bench_simulator([shared_data], simulator=name, dataset=dataset, every=7)
    assert answer["latency"]["worst_ratio_error_pct"] <= ratio_pct
    assert answer["latency"]["mape_pct"] <= mape_pct
    assert answer["energy"]["worst_ratio_error_pct"] <= energy_ratio_pct
