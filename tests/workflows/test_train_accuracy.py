"""`hwnas train accuracy` and `train meta` in process, small and short."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.card import load_card
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.references import PAPER_INDICES
from hwnas_sdk.spaces.nasbench201 import NasBench201

pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.neural import accuracy_ensemble
from hwnas_sdk.workflows.train_accuracy import train_accuracy

SPACE = NasBench201()


@pytest.fixture(scope="module")
def cells():
    index = np.unique(np.r_[np.arange(0, 15_625, 32), PAPER_INDICES])
    return index, SPACE.all_genotypes()[index]


@pytest.fixture(scope="module")
def error(cells):
    n_conv3, n_conv1 = (cells[1] == 3).sum(axis=1), (cells[1] == 2).sum(axis=1)
    return 6.0 + 30.0 * np.exp(-0.5 * n_conv3 - 0.2 * n_conv1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, cells, error):
    """Every 32nd cell and the references, on four devices."""
    folder = tmp_path_factory.mktemp("tables")
    index, genes = cells
    arch = [SPACE.encode(SPACE.architecture(g)) for g in genes]
    dead = np.array([SPACE.is_dead(SPACE.architecture(g)) for g in genes])
    shown = {"index": index, "arch": arch, "cifar10_test_acc": np.where(dead, 10.0, 100.0 - error)}
    pq.write_table(pa.table(shown), folder / "nasbench201.parquet")
    counts = structural_features(genes)[:, 1:5]
    costs = {"index": index, "arch": arch}
    for number, name in enumerate("abcd"):
        costs[name] = 1.0 + counts @ [0.05, 0.4 + 0.1 * number, 1.0, 0.3]
    pq.write_table(pa.table(costs), folder / "nasbench201_latency.parquet")
    return folder


def call(capsys, *argv, code=0):
    assert main([*argv, "--json", "-q"]) == code
    shown = capsys.readouterr()
    return json.loads(shown.out) if code == 0 else shown.err


def test_accuracy_from_tables_and_from_a_file(capsys, tmp_path, tables, cells, error):
    path = tmp_path / "acc.safetensors"
    short = ("--epochs", "6", "-o", str(path))
    answer = call(capsys, "train", "accuracy", "--data", str(tables), *short)
    assert answer.keys() >= {"model", "metrics", "n_labels", "weights_sha256"}
    assert answer["metrics"]["kendall"] > 0.5
    model = AccuracyModel.load(path)
    assert model.card.metrics["held_out_families"]["n"] > 10
    live = model.predict(cells[1]).mean < 90.0
    assert kendall(error[live], model.predict(cells[1]).mean[live]) > 0.7
    labels = tmp_path / "mine.csv"
    rows = [
        f"{SPACE.encode(SPACE.architecture(g))},{e}" for g, e in zip(cells[1], error, strict=True)
    ]
    labels.write_text("\n".join(["arch,error_pct", *rows]))
    own = call(
        capsys, "train", "accuracy", "--labels", str(labels), *short, "--dataset", "mine",
        "--classes", "4", "--train", "60",
    )  # fmt: skip
    assert own["n_labels"] == 60
    assert AccuracyModel.load(path).predict(np.zeros((1, 6), int)).mean.tolist() == [75.0]


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("part", "done"), [("without held-out families", 2), ("all labels", 1), ("all labels", 4)]
)
def test_a_killed_training_continues(tmp_path, tables, monkeypatch, part, done):
    monkeypatch.setattr(accuracy_ensemble, "CHECKPOINT_EVERY_S", 0.0)
    options = {"data_dirs": [tables], "train": 200, "epochs": 5}
    whole = train_accuracy(tmp_path / "whole.safetensors", **options)
    path = tmp_path / "killed.safetensors"

    def die(event):
        if (event.message, event.done) == (part, done):
            raise KilledError

    with pytest.raises(KilledError):
        train_accuracy(path, **options, on_event=die)
    with pytest.raises(ModelError, match="another training"):
        train_accuracy(path, **options, seed=1)
    events = []
    again = train_accuracy(path, **options, on_event=events.append)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["metrics"] == whole["metrics"]
    left = [(e.message, e.done) for e in events]
    assert (part, done) not in left
    assert (part, done + 1) in left
    assert not list(tmp_path.glob("*.checkpoint"))


def test_accuracy_needs_one_source_and_enough_of_it(capsys, tmp_path, tables):
    out = ("-o", str(tmp_path / "m.safetensors"))
    assert "--labels" in call(capsys, "train", "accuracy", *out, code=3)
    both = ("--data", str(tables), "--labels", "x.csv")
    assert "once" in call(capsys, "train", "accuracy", *both, *out, code=3)
    labels = tmp_path / "few.csv"
    labels.write_text("arch,error_pct\n" + SPACE.encode(SPACE.sample(1, seed=0)[0]) + ",5\n")
    few = ("train", "accuracy", "--labels", str(labels))
    assert "50 are needed" in call(capsys, *few, *out, code=6)
    assert "--classes" in call(capsys, *few, "--dataset", "mine", *out, code=3)


def test_meta_trains_judges_and_writes(capsys, tmp_path, tables):
    from hwnas_sdk.predictors.neural.meta import MetaPredictor

    path = tmp_path / "meta.safetensors"
    arguments = ("train", "meta", "--data", str(tables), "--train-devices", "a,b,c")
    arguments = (*arguments, "--epochs", "1")
    answer = call(capsys, *arguments, "--devices", "d", "-o", str(path))
    assert answer.keys() >= {"model", "metrics", "weights_sha256"}
    assert -1 <= answer["metrics"]["d"]["spearman"] <= 1
    assert MetaPredictor.load(path).plan.epochs == 1
    assert not path.with_suffix(".checkpoint").exists()
    figures = answer["metrics"]["d"]
    assert 400 < figures["n"] < 501
    assert figures["n_tied_pairs"] > 0  # the table's costs are sums of a few operators
    assert load_card(path).metrics["judged_on"]["d"]["n_tied_pairs"] == figures["n_tied_pairs"]
    assert main([*arguments, "--devices", "d", "-o", str(path), "-q"]) == 0
    shown = capsys.readouterr().out
    assert "n tied pairs" in shown
    assert str(figures["n_tied_pairs"]) in shown
    assert "judge" in call(capsys, *arguments, "--devices", "a", "-o", str(path), code=3)
