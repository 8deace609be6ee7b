"""Invented tables for the latency bench, and the bench with defaults that fit them."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hwnas_sdk.predictors.encodings import FEATURE_NAMES, structural_features
from hwnas_sdk.predictors.references import PAPER_INDICES
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows.bench_latency import run_bench_latency
from hwnas_sdk.workflows.latency_protocol import plan_latency_bench

SPACE = NasBench201()
TRAIN = [
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3",
    "essential_ph_1", "samsung_s7", "titanx_1", "titanx_32", "titanx_256", "gold_6240",
]  # fmt: skip
TEST = ["titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"]


def make_tables(folder):
    """1,505 cells, half of the paper's among them; 'hole' has no value on every second row."""
    index = np.unique([*range(0, 15_000, 10), *PAPER_INDICES[:5]])
    genes = SPACE.all_genotypes()[index]
    arch = [SPACE.encode(SPACE.architecture(cell)) for cell in genes]
    accuracy = [10.0 if SPACE.is_dead(SPACE.architecture(cell)) else 91.0 for cell in genes]
    pq.write_table(
        pa.table({"index": index, "arch": arch, "cifar10_test_acc": accuracy}),
        folder / "nasbench201.parquet",
    )
    features = structural_features(genes)
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"index": index, "arch": arch}
    for name in ("a", "b", "c", "d", "unseen", "hole"):
        values = np.full(len(genes), 2.0)
        for op, low, high in (("conv3", 1, 2), ("conv1", 0.3, 1), ("pool", 0.2, 1)):
            values += rng.uniform(low, high) * features[:, FEATURE_NAMES.index(f"raw_{op}")]
        columns[name] = values * np.exp(0.02 * rng.normal(size=len(genes)))
    holes = np.asarray(columns["hole"]).tolist()
    columns["hole"] = [v if i % 2 else None for i, v in enumerate(holes)]
    pq.write_table(pa.table(columns), folder / "nasbench201_latency.parquet")
    return folder


def bench(tables, **options):
    chosen = {"train_devices": ["a", "b", "c", "d"], "devices": ["unseen"], **options}
    return run_bench_latency([tables], **chosen)


def plan(**options):
    chosen = {
        "train_devices": ["a", "b", "c", "d"], "devices": ["unseen"], "metric": "latency",
        "train_metric": None, "samples": 10, "model": "auto", "references": "random",
        "leave_one_out": False, "seed": 0,
    }  # fmt: skip
    return plan_latency_bench(**{**chosen, **options})


def with_columns(tables, folder, columns, *, energy=None):
    """A copy of the tables with more latency columns, and with energies."""
    shutil.copy(tables / "nasbench201.parquet", folder)
    table = pq.read_table(tables / "nasbench201_latency.parquet")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, folder / "nasbench201_latency.parquet")
    if energy is not None:
        named = {f"{name}_energy_mj": pa.array(values) for name, values in energy.items()}
        rows = {"index": table["index"], "arch": table["arch"], **named}
        pq.write_table(pa.table(rows), folder / "nasbench201_hwnasbench_energy.parquet")
    return folder


def column(tables, name):
    return pq.read_table(tables / "nasbench201_latency.parquet")[name].to_numpy()
