"""The latency bench: on synthetic tables for its rules, on the public ones for its thresholds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from latency_bench_tables import SPACE, TEST, TRAIN, bench, make_tables

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.registry import TRANSFER_MODELS, transfer_model
from hwnas_sdk.workflows import bench_latency
from hwnas_sdk.workflows.bench_latency import run_bench_latency
from hwnas_sdk.workflows.latency_protocol import (
    ENERGY_DEVICES,
    REFERENCES,
    LatencyProtocol,
)

KEYS = {
    "spearman", "kendall", "kendall_ceiling", "mape_pct", "median_ape_pct", "coverage90", "n",
    "n_tied_pairs", "kendall_rounded", "spearman_new_families", "kendall_new_families",
    "n_new_families",
}  # fmt: skip
# Kendall's tau-b of auto with our references; a little below what it reaches.
FLOORS = {"titan_rtx_256": 0.98, "gold_6226": 0.89, "fpga": 0.9999, "pixel2": 0.75,
          "raspi4": 0.88, "eyeriss": 0.9999}  # fmt: skip
FAST = ("additive", "linear-transfer", "nearest-device", "flops")  # params ranks as flops does
EPS = 0.002  # how much another model may be ahead on one device
# Models that need torch or grow trees are held to the same by their own conformance tests.
MODELS = ("bayes", "flops", "params", "linear-transfer", "nearest-device")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return make_tables(tmp_path_factory.mktemp("tables"))


# --- before and during the work -----------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_latency, "load_tables", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        bench(tables, plots=tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "total"), [("brp-nas", 3), ("gates", 3), ("stack", 4)])
def test_slow_models_tell_what_they_do(tables, monkeypatch, model, total):
    events = []
    monkeypatch.setattr(transfer_model(model), "epochs", 3, raising=False)
    bench(tables, model=model, references="random", on_event=events.append)
    told = [event for event in events if event.task == f"train {model}"]
    assert [event.done for event in told] == list(range(1, total + 1))
    assert {event.total for event in told} == {total}


# --- rules of every model -----------------------------------------------------------------------


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
    assert [(e.done, e.total) for e in events] == [(0, 2), (1, 2), (2, 2)]


def test_auto_is_the_default_and_the_answer_names_what_was_asked(tables):
    default, asked = bench(tables), bench(tables, model="bayes")
    assert (default["model"], asked["model"]) == ("auto", "bayes")
    assert default["devices"] == asked["devices"]


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


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_the_ceiling_is_what_the_noiseless_truth_reaches(noise):
    """Swapped cells share their truth, so how they differ tells how far truth itself would get."""
    genes = SPACE.all_genotypes()
    tables = SimpleNamespace(genotypes=genes, live=np.ones(len(genes), dtype=bool))
    pairs = genes[:, 2] == 0
    truth = np.exp((genes == 3).sum(axis=1) + 0.3 * (genes == 2).sum(axis=1))
    noisy = truth * np.exp(noise * np.random.default_rng(0).normal(size=len(truth)))
    found = bench_latency._repeatability(tables, noisy)
    assert found["spearman_noise_ceiling"] == pytest.approx(
        spearman(truth[pairs], noisy[pairs]), abs=0.01
    )
    assert found["kendall_retest"] < found["spearman_noise_ceiling"] < 1.0


def test_nobody_knows_the_ceiling_of_a_column_with_few_pairs():
    genes = SPACE.all_genotypes()[:100]
    tables = SimpleNamespace(genotypes=genes, live=np.ones(100, dtype=bool))
    found = bench_latency._repeatability(tables, np.arange(100.0))
    assert found == {"kendall_retest": None, "spearman_noise_ceiling": None}


def test_what_was_not_measured_is_neither_sampled_nor_judged(tables):
    figures = bench(tables, devices=["hole", "unseen"])["devices"]
    assert figures["hole"]["n_samples"] == 10
    assert figures["hole"]["n"] < 0.52 * figures["unseen"]["n"]
    assert figures["hole"]["spearman"] > 0.95


@pytest.mark.parametrize(
    ("model", "references"),
    [(model, "ours") for model in MODELS] + [("bayes", chosen) for chosen in REFERENCES[1:]],
)
def test_only_the_samples_of_an_unseen_device_are_read(
    tables, tmp_path, monkeypatch, model, references
):
    """Reverse all values but the sampled ones: the predictions must stay the same."""
    predictions, sampled = [], []
    judge = bench_latency.agreement

    def listen(truth, mean, sd):
        predictions.append(mean)
        return judge(truth, mean, sd)

    samples = LatencyProtocol._samples

    def remember(*arguments):
        sampled.append(samples(*arguments))
        return sampled[-1]

    monkeypatch.setattr(bench_latency, "agreement", listen)
    monkeypatch.setattr(LatencyProtocol, "_samples", remember)
    bench(tables, model=model, references=references)
    table = pq.read_table(tables / "nasbench201_latency.parquet")
    values = table["unseen"].to_numpy().copy()
    others = np.setdiff1d(np.arange(len(values)), sampled[0])
    values[others] = values[others][::-1]
    column = table.column_names.index("unseen")
    table = table.set_column(column, "unseen", pa.array(values))
    shutil.copy(tables / "nasbench201.parquet", tmp_path)
    pq.write_table(table, tmp_path / "nasbench201_latency.parquet")
    bench(tmp_path, model=model, references=references)
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
        ({"references": "paper", "model": "help-paper"}, "10 networks beside"),
        ({"samples": 9, "model": "help-paper"}, "10 networks beside"),
        ({"samples": 0}, "samples"),
        ({"metric": "power"}, "energy"),
    ],
)
def test_wrong_options_say_what_to_do(tables, options, message):
    with pytest.raises(ConfigError, match=message):
        bench(tables, **options)


def test_a_model_of_another_space_is_refused(tables, monkeypatch):
    entry = replace(TRANSFER_MODELS["flops"], spaces=("other",))
    monkeypatch.setitem(TRANSFER_MODELS, "flops", entry)
    with pytest.raises(ConfigError, match="other, not of nasbench201"):
        bench(tables, model="flops")


def test_what_help_needs_beside_the_references_is_what_it_asks_for():
    pytest.importorskip("torch")
    from hwnas_sdk.predictors.neural.help_episode import N_SUPPORT

    assert TRANSFER_MODELS["help-paper"].n_beside_references == N_SUPPORT


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
    assert {f["n"] for f in figures} == {15_284 - 10}
    assert 0.85 < np.mean([f["coverage90"] for f in figures]) < 0.97
    if references == "ours":
        reached = {name: f["kendall"] for name, f in answer["devices"].items()}
        assert all(reached[name] >= floor for name, floor in FLOORS.items()), reached
    for other in FAST:
        behind = run_bench_latency(
            [shared_data], train_devices=TRAIN, devices=TEST, references=references, model=other
        )["devices"]
        for name, f in answer["devices"].items():
            # Where a device answers in whole milliseconds tau-b pays for ties: both are rounded.
            key = "kendall" if f["kendall_rounded"] is None else "kendall_rounded"
            assert f[key] >= behind[name][key] - EPS, (other, name)


@pytest.mark.slow
@pytest.mark.data
def test_missing_public_values_and_energy(shared_data):
    known = ["cifar10_edgegpu", "cifar10_raspi4", "cifar10_pixel3"]
    tpu = run_bench_latency([shared_data], train_devices=known, devices=["cifar10_edgetpu"])
    assert tpu["devices"]["cifar10_edgetpu"]["n"] < 15_625 - 4_699 + 1
    told = run_bench_latency([shared_data], devices=["cifar10_edgetpu"], references="paper")
    assert told["devices"]["cifar10_edgetpu"]["n_samples"] == 8
    assert len(told["notes"]) == 1
    energy = run_bench_latency(
        [shared_data],
        train_devices=["cifar10_edgegpu", "cifar10_fpga"],
        devices=["cifar10_eyeriss"],
        metric="energy",
    )
    assert energy["devices"]["cifar10_eyeriss"]["spearman"] > 0.85


@pytest.mark.slow
@pytest.mark.data
def test_public_energies_from_latencies(shared_data):
    answer = run_bench_latency([shared_data], metric="energy")
    assert (answer["train_metric"], tuple(answer["devices"])) == ("latency", ENERGY_DEVICES)
    jetson = answer["devices"]["cifar10_edgegpu"]
    assert jetson["spearman"] > 0.86
    assert 0.85 < jetson["coverage90"] < 0.98
    assert answer["devices"]["cifar10_eyeriss"]["spearman"] > 0.99


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("known", ["cifar10_raspi4", "cifar10_raspi4,gold_6240"])
def test_public_aliases_are_refused(shared_data, known):
    with pytest.raises(ConfigError, match=r"'cifar10_raspi4'.*'raspi4'"):
        run_bench_latency([shared_data], train_devices=known.split(","), devices=["raspi4"])
