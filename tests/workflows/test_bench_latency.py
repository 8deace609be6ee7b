"""The latency bench: on synthetic tables for its rules, on the public ones for its thresholds."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, structural_features
from hwnas_sdk.predictors.registry import TRANSFER_MODELS
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows import bench_latency
from hwnas_sdk.workflows.bench_latency import run_bench_latency

TRAIN = [
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3",
    "essential_ph_1", "samsung_s7", "titanx_1", "titanx_32", "titanx_256", "gold_6240",
]  # fmt: skip
TEST = ["titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"]
KEYS = {
    "spearman", "kendall", "kendall_ceiling", "mape_pct", "median_ape_pct", "coverage90", "n",
    "n_tied_pairs",
}  # fmt: skip
SPACE = NasBench201()
# Models that need torch or grow trees are held to the same by their own conformance tests.
MODELS = ("bayes", "flops", "params", "linear-transfer", "nearest-device")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """1,500 cells and six devices; 'hole' has no value on every second row."""
    folder = tmp_path_factory.mktemp("tables")
    index = np.arange(0, 15_000, 10)
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


def test_contract_keys_and_order(tables):
    events = []
    answer = bench(tables, devices=["unseen", "hole"], on_event=events.append)
    assert {
        "devices",
        "mean_spearman",
        "mean_kendall",
        "model",
        "fit_seconds",
        "adapt_seconds",
    } <= (answer.keys())
    assert list(answer["devices"]) == ["unseen", "hole"]
    assert all(figures.keys() >= KEYS for figures in answer["devices"].values())
    assert answer["mean_spearman"] > 0.97
    assert [(e.done, e.total) for e in events] == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_plots_are_drawn_where_asked(tables, tmp_path):
    assert bench(tables)["plots"] == []
    for model, n_drawn in (("bayes", 2), ("flops", 1)):  # flops states no interval
        drawn = bench(tables, model=model, references="random", plots=tmp_path)["plots"]
        assert len(drawn) == n_drawn
        assert all((tmp_path / name).is_file() for name in drawn)


def test_the_same_call_gives_the_same_answer(tables):
    first, second = bench(tables), bench(tables)
    assert first["devices"] == second["devices"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers(tables, model):
    figures = bench(tables, model=model)["devices"]["unseen"]
    assert figures["spearman"] > 0.7
    assert (figures["coverage90"] is None) != TRANSFER_MODELS[model].states_sd


def test_what_was_not_measured_is_neither_sampled_nor_judged(tables):
    figures = bench(tables, devices=["hole", "unseen"])["devices"]
    assert figures["hole"]["n_samples"] == 10
    assert figures["hole"]["n"] < 0.52 * figures["unseen"]["n"]
    assert figures["hole"]["spearman"] > 0.95


@pytest.mark.parametrize("model", MODELS)
def test_only_the_samples_of_an_unseen_device_are_read(tables, tmp_path, monkeypatch, model):
    """Reverse all values but the sampled ones: the predictions must stay the same."""
    predictions, sampled = [], []
    judge = bench_latency.agreement

    def listen(truth, mean, sd):
        predictions.append(mean)
        return judge(truth, mean, sd)

    references = bench_latency._references

    def remember(*arguments):
        sampled.append(references(*arguments))
        return sampled[-1]

    monkeypatch.setattr(bench_latency, "agreement", listen)
    monkeypatch.setattr(bench_latency, "_references", remember)
    bench(tables, model=model)
    table = pq.read_table(tables / "nasbench201_latency.parquet")
    values = table["unseen"].to_numpy().copy()
    others = np.setdiff1d(np.arange(len(values)), sampled[0])
    values[others] = values[others][::-1]
    column = table.column_names.index("unseen")
    table = table.set_column(column, "unseen", pa.array(values))
    shutil.copy(tables / "nasbench201.parquet", tmp_path)
    pq.write_table(table, tmp_path / "nasbench201_latency.parquet")
    bench(tmp_path, model=model)
    np.testing.assert_array_equal(sampled[0], sampled[1])
    np.testing.assert_array_equal(predictions[0], predictions[1])


@pytest.mark.slow
def test_leave_one_out_learns_from_all_others(tables):
    answer = bench(tables, train_devices=[], devices=["a", "b", "c"], leave_one_out=True)
    assert answer["mean_spearman"] > 0.95
    both = bench(tables, train_devices=["a", "b"], devices=["a", "b"], leave_one_out=True)
    assert list(both["devices"]) == ["a", "b"]


@pytest.mark.parametrize("samples", [1, 3, 25])
def test_other_numbers_of_samples(tables, samples):
    figures = bench(tables, samples=samples)["devices"]["unseen"]
    assert figures["n_samples"] == samples
    assert figures["spearman"] > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": ["nobody"]}, "unseen"),
        ({"train_devices": ["nobody"]}, "there are: a, b"),
        ({"devices": ["a"]}, "leave-one-out"),
        ({"devices": []}, "no device"),
        ({"train_devices": []}, "no training device"),
        ({"model": "oracle"}, "linear-transfer"),
        ({"references": "theirs"}, "paper"),
        ({"references": "paper", "samples": 11}, "10 networks"),
        ({"samples": 0}, "samples"),
        ({"metric": "power"}, "energy"),
    ],
)
def test_wrong_options_say_what_to_do(tables, options, message):
    with pytest.raises(ConfigError, match=message):
        bench(tables, **options)


def test_missing_tables_and_rows_are_data_errors(tables, tmp_path):
    with pytest.raises(DataError, match=r"nasbench201\.parquet"):
        bench(tmp_path)
    with pytest.raises(DataError, match="energy"):
        bench(tables, metric="energy")
    with pytest.raises(DataError, match="hole"):
        bench(tables, devices=["hole"], samples=1400)


# --- public tables ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("references", "at_least"), [("ours", 0.972), ("paper", 0.968)])
def test_unseen_public_devices(shared_data, references, at_least):
    answer = run_bench_latency(
        [shared_data], train_devices=TRAIN, devices=TEST, references=references
    )
    assert answer["mean_spearman"] >= at_least
    figures = answer["devices"].values()
    assert {f["n"] for f in figures} == {15_284}
    assert 0.85 < np.mean([f["coverage90"] for f in figures]) < 0.97


@pytest.mark.slow
@pytest.mark.data
def test_missing_public_values_and_energy(shared_data):
    known = ["cifar10_edgegpu", "cifar10_raspi4", "cifar10_pixel3"]
    tpu = run_bench_latency([shared_data], train_devices=known, devices=["cifar10_edgetpu"])
    assert tpu["devices"]["cifar10_edgetpu"]["n"] < 15_625 - 4_699 + 1
    energy = run_bench_latency(
        [shared_data],
        train_devices=["cifar10_edgegpu", "cifar10_fpga"],
        devices=["cifar10_eyeriss"],
        metric="energy",
    )
    assert energy["devices"]["cifar10_eyeriss"]["spearman"] > 0.85
