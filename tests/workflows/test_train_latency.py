"""`hwnas train latency` and what takes its file; no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, load_card
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.metrics import tied_pairs
from hwnas_sdk.predictors.references import REFERENCE_SETS
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.workflows.bench_search import HELP_TRAIN_DEVICES
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.priors import load_prior

SPACE = NasBench201()
FAKE = "fake://?mode=ok"
WRONG = WEIGHTS_FOLDER / "nb201_accuracy_cifar10.safetensors"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 32nd cell and the references, on five devices; d reads whole milliseconds."""
    folder = tmp_path_factory.mktemp("tables")
    references = [SPACE.index(SPACE.decode(text)) for text in REFERENCE_SETS["ours-10"]]
    index = np.unique(np.r_[np.arange(0, 15_625, 32), references])
    genes = np.array([SPACE.decode(f"#{number}").genotype for number in index])
    architectures = [SPACE.architecture(g) for g in genes]
    arch = [SPACE.encode(architecture) for architecture in architectures]
    dead = np.array([SPACE.is_dead(architecture) for architecture in architectures])
    errors = {"index": index, "arch": arch, "cifar10_test_acc": np.where(dead, 10.0, 90.0)}
    pq.write_table(pa.table(errors), folder / "nasbench201.parquet")
    rng = np.random.default_rng(0)
    counts = structural_features(genes)[:, 1:5]
    costs: dict[str, Any] = {"index": index, "arch": arch}
    for number, name in enumerate("abcde"):
        exact = 2.0 + counts @ [0.1, 0.8 + 0.2 * number, 2.0, 0.6]
        costs[name] = exact * np.exp(0.02 * rng.standard_normal(len(exact)))
    costs["d"] = np.round(costs["d"])
    costs["a_again"] = 1.5 * costs["a"]
    costs["e"] = np.where(np.isin(index, references), np.nan, costs["e"])
    pq.write_table(pa.table(costs), folder / "nasbench201_latency.parquet")
    return folder


def call(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json", "-q"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def prior(capsys: pytest.CaptureFixture[str], tables: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "prior.safetensors"
    arguments = ("--data", str(tables), "--train-devices", "a,b,c", "-o", str(path))
    call(capsys, "train", "latency", *arguments)
    return path


def test_it_trains_judges_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tables: Path
) -> None:
    path = tmp_path / "prior.safetensors"
    arguments = ["train", "latency", "--data", str(tables), "--train-devices", "a,b,c"]
    answer = call(capsys, *arguments, "--devices", "d", "-o", str(path))
    figures = answer["metrics"]["d"]
    assert figures["spearman"] > 0.9
    assert figures["n_samples"] == 10
    column = pq.read_table(tables / "nasbench201_latency.parquet")["d"].to_numpy()
    assert figures["n_tied_pairs"] > 100
    assert figures["n_tied_pairs"] < tied_pairs(column)  # the dead and the ten judge nothing
    assert LatencyPrior.load(path).devices == ("a", "b", "c")
    card = load_card(path)
    assert card.metrics["judged_on"]["d"] == figures
    assert (card.data["devices"], card.weights_sha256) == (
        ["a", "b", "c"],
        answer["weights_sha256"],
    )
    assert main([*arguments, "--devices", "d", "-o", str(path), "-q"]) == 0
    shown = capsys.readouterr().out
    assert "n tied pairs" in shown
    assert str(figures["n_tied_pairs"]) in shown


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--train-devices", "a,b", "--devices", "a"), 3, "cannot judge"),
        (("--train-devices", "a,b", "--devices", "a_again"), 3, "'a_again'"),
        (("--train-devices", "a,toaster"), 3, "toaster"),
        (("--train-devices", "a,b", "--devices", "e"), 6, "0 measured reference networks"),
    ],
)
def test_what_cannot_be_trained_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tables: Path,
    arguments: tuple[str, ...], code: int, text: str,
) -> None:  # fmt: skip
    path = tmp_path / "prior.safetensors"
    shown = call(
        capsys, "train", "latency", "--data", str(tables), *arguments, "-o", str(path), code=code
    )
    assert text in shown["error"]["message"]
    assert not path.exists()


def test_a_prior_of_energies_is_refused(
    capsys: pytest.CaptureFixture[str], prior: Path, tmp_path: Path
) -> None:
    assert load_card(prior).data["metric"] == "latency"
    other = tmp_path / "energy.safetensors"
    LatencyPrior.load(prior).save(other, data={"metric": "energy"})
    shown = call(capsys, "profile", FAKE, "--prior", str(other), code=ModelError.exit_code)
    assert shown["error"]["code"] == "other_metric"
    assert "energy" in shown["error"]["message"]
    assert load_prior(prior).devices == ("a", "b", "c")


def test_a_place_that_cannot_be_written_is_refused_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "prior.safetensors"
    shown = call(
        capsys, "train", "latency", "--data", str(tmp_path / "none"), "-o", str(nowhere), code=6
    )
    assert shown["error"]["code"] == "not_writable"


def test_the_shipped_prior_is_what_it_trains(
    capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "prior.safetensors"
    call(capsys, "train", "latency", "--data", str(shared_data), "-o", str(path))
    mine, shipped = LatencyPrior.load(path), LatencyPrior.shipped()
    assert mine.devices == HELP_TRAIN_DEVICES
    assert set(mine.devices) == set(shipped.devices)
    np.testing.assert_allclose(mine.mean, shipped.mean, rtol=0, atol=1e-8)
    covariances = [p.deviations.T @ p.deviations for p in (mine, shipped)]
    np.testing.assert_allclose(*covariances, rtol=0, atol=1e-8)


def test_a_search_starts_from_it(capsys: pytest.CaptureFixture[str], prior: Path) -> None:
    call(capsys, "profile", FAKE)
    asked = ("search", "--device", FAKE, "--candidates", "4")
    usual, own = call(capsys, *asked), call(capsys, *asked, "--prior", str(prior))
    shipped = WEIGHTS_FOLDER / "nb201_latency_prior.safetensors"
    assert (usual["prior"], own["prior"]) == (None, str(prior))
    assert own["front"] != usual["front"]
    assert call(capsys, *asked, "--prior", str(shipped))["front"] == usual["front"]
    with Lab.open() as lab:
        board = lab.device(FAKE)
        front = lab.search(SPACE, on=board, candidates=4, prior=prior)
    assert [c.arch for c in front.candidates] == [row["arch"] for row in own["front"]]


@pytest.mark.slow
def test_a_loop_starts_from_it_and_its_page_names_it(
    capsys: pytest.CaptureFixture[str], prior: Path, tmp_path: Path
) -> None:
    asked = ("loop", "--device", FAKE, "--rounds", "1", "--candidates", "3")
    own = call(capsys, *asked, "--prior", str(prior))
    assert own["prior"] == str(prior)
    usual = call(capsys, *asked)
    predicted = [
        [row["predicted_ms"] for row in answer["rounds"][0]["candidates"]]
        for answer in (own, usual)
    ]
    assert predicted[0] != predicted[1]
    page = tmp_path / "page.html"
    call(capsys, "report", own["run"], "-o", str(page))
    assert f"--prior {prior}" in page.read_text(encoding="utf-8")


def test_an_active_profile_chooses_by_it(capsys: pytest.CaptureFixture[str], prior: Path) -> None:
    asked = ("profile", FAKE, "--active", "--precision", "0.01", "--max-networks", "7")
    own, usual = call(capsys, *asked, "--prior", str(prior)), call(capsys, *asked)
    assert own["architectures"][:5] == usual["architectures"][:5]
    assert own["architectures"][5:] != usual["architectures"][5:]


def test_a_file_written_anew_starts_another_run(prior: Path) -> None:
    from hwnas_sdk.workflows.search import SearchPlan

    plan = SearchPlan(prior=prior)
    first, shipped = plan.to_json(), SearchPlan().to_json()
    assert "prior_id" in first
    assert "prior_id" not in shipped
    LatencyPrior.shipped().save(prior, data={})
    second = plan.to_json()
    assert second["prior_id"] != first["prior_id"]
    assert {**second, "prior_id": None} == {**first, "prior_id": None}


@pytest.mark.parametrize("verb", [("profile", FAKE), ("profile", FAKE, "--active"),
                                  ("search", "--device", FAKE), ("loop", "--device", FAKE),
                                  ("bench", "layers", "--device", FAKE)])  # fmt: skip
def test_a_wrong_file_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], verb: tuple[str, ...], tmp_path: Path
) -> None:
    bare = tmp_path / "no-card.safetensors"
    bare.write_bytes(b"")
    for path, text in ((WRONG, "'latency_prior' is needed"), (bare, "no model card")):
        shown = call(capsys, *verb, "--prior", str(path), code=ModelError.exit_code)
        assert text in shown["error"]["message"]
        assert "\n" not in shown["error"]["message"]
    with Lab.open() as lab:
        assert not lab.store.runs()


def test_nothing_measured_takes_none(capsys: pytest.CaptureFixture[str], prior: Path) -> None:
    shown = call(
        capsys, "search", "--device", FAKE, "--zero-measurements", "--prior", str(prior), code=3
    )
    assert "--zero-measurements" in shown["error"]["message"]
