"""What a model of the latency bench may see of a device, and what it is judged on."""

from __future__ import annotations

import numpy as np
import pytest
from latency_bench_tables import TEST, TRAIN, bench, column, make_tables, plan, with_columns

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows import bench_latency, latency_protocol
from hwnas_sdk.workflows.latency_protocol import (
    ENERGY_DEVICES,
    LEAST_JUDGED,
    MANY_SAMPLES,
    LatencyProtocol,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return make_tables(tmp_path_factory.mktemp("tables"))


# --- what is judged -----------------------------------------------------------------------------


@pytest.mark.parametrize("references", ["ours", "paper", "random", "active"])
def test_what_was_sampled_is_not_judged(tables, references):
    protocol = LatencyProtocol(load_tables([tables]), plan(references=references, samples=6))
    case = protocol.case("unseen")
    live = protocol.tables.live
    assert len(case.rows)
    assert live[case.rows].all()
    assert not case.judged[case.rows].any()
    assert case.judged.sum() == live.sum() - len(case.rows)
    families = protocol.tables.families
    assert not np.isin(families[case.new_families], families[case.rows]).any()
    assert case.new_families.sum() < case.judged.sum()


@pytest.mark.parametrize("samples", [MANY_SAMPLES, MANY_SAMPLES + 1])
def test_with_many_samples_their_functions_are_not_judged_either(tables, samples):
    answer = bench(tables, references="random", samples=samples, model="flops")
    figures = answer["devices"]["unseen"]
    live = int(load_tables([tables]).live.sum())
    assert figures["n_new_families"] < live - samples
    if samples > MANY_SAMPLES:
        assert answer["judged"] == "new families"
        assert figures["n"] == figures["n_new_families"]
        assert figures["kendall"] == figures["kendall_new_families"]
    else:
        assert answer["judged"] == "rest"
        assert figures["n"] == live - samples


def test_too_few_left_to_judge_is_said_before_the_work(tables, monkeypatch):
    monkeypatch.setattr(bench_latency, "_fit", pytest.fail)
    live = int(load_tables([tables]).live.sum())
    options = {"references": "random", "samples": live - LEAST_JUDGED + 1}
    with pytest.raises(DataError, match="to judge by") as caught:
        bench(tables, **options)
    assert caught.value.code == "too_few_rows"
    options["samples"] -= 1  # enough are left, yet they all compute what a sample computes
    with pytest.raises(DataError, match="another function"):
        bench(tables, **options)


def test_fewer_samples_than_asked_are_told(tables):
    answer = bench(tables, references="paper", model="flops")
    assert answer["samples"] == 10
    assert answer["devices"]["unseen"]["n_samples"] == 5
    assert answer["notes"] == [
        "unseen: 5 samples instead of 10, the other references were not measured on it"
    ]
    assert bench(tables, model="flops")["notes"] == []


def test_samples_that_are_references_are_no_use_to_a_model_that_needs_others(tables, monkeypatch):
    """Also those that a draw happens to hit; said before minutes of training."""
    monkeypatch.setattr(bench_latency, "_fit", pytest.fail)
    drawn = LatencyProtocol(load_tables([tables]), plan()).case("unseen").rows
    hit = int(load_tables([tables]).index[drawn[0]])
    monkeypatch.setattr(latency_protocol, "PAPER_INDICES", (hit,))
    with pytest.raises(ConfigError, match=r"unseen: help-paper needs 10 networks.*not 9"):
        bench(tables, references="random", model="help-paper")


# --- one device under two names -----------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_a_training_device_that_is_the_unseen_one_is_refused(tables, tmp_path, factor):
    doubled = with_columns(tables, tmp_path, {"twin": factor * column(tables, "unseen")})
    with pytest.raises(ConfigError, match=r"'twin'.*'unseen'") as caught:
        bench(doubled, train_devices=["a", "twin"])
    assert caught.value.code == "leaked_device"


def test_leaving_one_out_leaves_its_twin_out_too(tables, tmp_path):
    doubled = with_columns(tables, tmp_path, {"twin": 3.0 * column(tables, "a")})
    options = {"leave_one_out": True, "model": "linear-transfer"}
    answer = bench(doubled, train_devices=["b", "c", "twin"], devices=["a", "d"], **options)
    alone = bench(tables, train_devices=["b", "c"], devices=["a", "d"], **options)
    assert answer["devices"]["a"]["aliases_left_out"] == ["twin"]
    assert answer["devices"]["a"]["kendall"] == alone["devices"]["a"]["kendall"]
    assert answer["devices"]["d"]["aliases_left_out"] == []
    assert [note for note in answer["notes"] if "twin" in note and note.startswith("a: ")]
    with pytest.raises(ConfigError, match="no training device is left for a"):
        bench(doubled, train_devices=["twin"], devices=["a"], **options)


# --- energy -------------------------------------------------------------------------------------


def test_energy_is_learned_from_latencies_or_from_energies(tables, tmp_path):
    cells = load_tables([tables]).genotypes
    rng = np.random.default_rng(1)
    power_w = {name: rng.uniform(2, 3) + 0.2 * (cells == 2).sum(axis=1) for name in "abcd"}
    energy = {name: power * column(tables, name) for name, power in power_w.items()}
    both = with_columns(tables, tmp_path, {}, energy=energy)
    options = {"metric": "energy", "train_devices": ["a", "b", "c"], "devices": ["d"]}
    carried = bench(both, train_metric="latency", **options)
    own = bench(both, **options)
    assert (carried["train_metric"], own["train_metric"]) == ("latency", "energy")
    assert own["devices"]["d"]["spearman"] > 0.97
    assert 0.9 < carried["devices"]["d"]["spearman"] < own["devices"]["d"]["spearman"]
    with pytest.raises(ConfigError, match="--train-metric latency"):
        bench(both, metric="energy", train_devices=["hole"], devices=["d"])
    with pytest.raises(ConfigError, match=r"no energy.*there are: a, b, c, d"):
        bench(both, metric="energy", train_devices=["a"], devices=["unseen"])


def test_energy_in_proportion_to_a_known_latency_is_refused(tables, tmp_path):
    both = with_columns(tables, tmp_path, {}, energy={"e": 7.0 * column(tables, "a")})
    with pytest.raises(ConfigError, match=r"'a'.*'e'"):
        bench(both, metric="energy", train_metric="latency", devices=["e"])


def test_default_devices_have_what_is_asked_of_them():
    asked = {"train_devices": None, "devices": None}
    latency, energy = plan(**asked), plan(**asked, metric="energy")
    assert (list(latency.train_devices), list(latency.devices)) == (TRAIN, TEST)
    assert latency.train_metric == energy.train_metric == "latency"
    assert energy.devices == ENERGY_DEVICES
    assert not any("fpga" in name for name in energy.devices)
    left_out = plan(**asked, metric="energy", train_metric="energy", leave_one_out=True)
    assert left_out.train_devices == ()
    with pytest.raises(ConfigError, match="--leave-one-out"):
        plan(**asked, metric="energy", train_metric="energy")
