"""train hypernetwork: a file, and what it proposes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import N_FEATURES, structural_features
from hwnas_sdk.predictors.memory import analytic_mib
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows import search_devices
from hwnas_sdk.workflows.hypernetworks import SearchDevices, device_vector
from hwnas_sdk.workflows.search import SearchPlan
from hwnas_sdk.workflows.search_devices import checked_objectives, memory_mib, told_by
from hwnas_sdk.workflows.train_hypernetwork import (
    SHIPPED,
    WEIGHTS_FOLDER,
    load_hypernetwork,
    train_space_hypernetwork,
)

torch = pytest.importorskip("torch")

from hwnas_sdk.search.modnas.proposals import propose  # noqa: E402


def test_trained_written_and_read_back(tmp_path):
    path = tmp_path / "net.safetensors"
    answer = train_space_hypernetwork(path, epochs=1, seed=3)
    assert set(answer) >= {"model", "metrics", "history", "duration_s"}
    assert 0.5 < answer["metrics"]["predicted_normalized_hv"] < 1.0
    assert not list(tmp_path.glob("*.checkpoint"))
    trained = load_hypernetwork(path)
    assert trained.card.weights_sha256 == answer["weights_sha256"]
    assert trained.references.shape == (10, 6)
    assert answer["metrics"]["protocol"] == load_hypernetwork().card.metrics["protocol"]
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["settings"]["plan"]["seed"] == 3
    card["settings"]["sizes"]["bank"] = 3
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="incomplete hypernetwork"):
        load_hypernetwork(path)


def test_the_shipped_one_knows_fast_from_accurate():
    trained = load_hypernetwork()
    prior, space = LatencyPrior.shipped(), get_space("nasbench201")
    weights = prior.mean[None]
    costs = (weights @ prior.standardise(structural_features(trained.references)).T)[0]
    cells = propose(trained.net, device_vector([costs]), equidistant())
    cells = cells[~np.array([space.is_dead(space.architecture(c)) for c in cells])]
    n_conv3 = (cells == 3).sum(axis=1)
    assert n_conv3[0] >= 4  # accuracy only
    assert n_conv3[-1] == 0  # latency only
    assert trained.card.kind == "hypernetwork"


def test_a_card_of_another_kind_is_refused(tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS_FOLDER / f"nb201_latency_prior{suffix}", tmp_path / f"x{suffix}")
    with pytest.raises(ModelError, match="hypernetwork"):
        load_hypernetwork(tmp_path / "x.safetensors")
    assert (WEIGHTS_FOLDER / f"{SHIPPED}.safetensors").stat().st_size < 200_000


def test_device_vectors_and_devices():
    vector = device_vector([np.array([3.0, 1.0, 2.0]), np.array([5.0, 5.0, 5.0])])
    assert vector.tolist() == pytest.approx([1.0, 0.0, 0.5, 0.0, 0.0, 0.0])
    with pytest.raises(ModelError, match="do not fit"):
        SearchDevices(np.zeros((2, 3)), np.zeros((3, 1, 4)))
    with pytest.raises(ConfigError, match="no shipped predictors"):
        train_space_hypernetwork(WEIGHTS_FOLDER / "x", space_name="other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "modnas", "objectives": ("error", "latency", "energy")}, "the shipped hyper"),
        ({"method": "auto", "hypernetwork": WEIGHTS_FOLDER}, "no use"),
    ],
)
def test_plans_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        SearchPlan(**options)


def test_three_objectives_are_trained_kept_and_used(tmp_path, monkeypatch):
    """The counted memory is replaced by the number of convolutions: cheap, and easy to check."""
    monkeypatch.setattr(search_devices, "memory_mib", convolutions)
    path = tmp_path / "net.safetensors"
    answer = train_space_hypernetwork(path, objectives=("latency", "error", "memory"), epochs=1)
    assert answer["objectives"] == ["error", "latency", "memory"]
    assert set(answer["history"][-1]) >= {"mean_scaled_latency", "mean_scaled_memory"}
    assert 0.4 < answer["metrics"]["predicted_normalized_hv"] <= 1.0
    assert answer["metrics"]["protocol"].startswith(f"hypervolume of {len(equidistant(3))} prop")
    trained = load_hypernetwork(path)
    assert (trained.net.plan.n_objectives, trained.net.plan.n_features) == (3, 20)
    space, prior = get_space("nasbench201"), LatencyPrior.shipped()
    model = prior.adapt(np.empty((0, N_FEATURES)), np.empty(0), np.empty(0))
    vector = told_by(space, model, trained.references, trained.objectives)
    assert vector.shape == (20,)
    assert (vector.min(), vector.max()) == (0.0, 1.0)
    leaning = propose(trained.net, vector, np.full((3, 3), 0.05) + 0.85 * np.eye(3))
    assert convolutions(space, leaning)[0] > convolutions(space, leaning)[2]
    card = json.loads(path.with_suffix(".json").read_text())
    card["settings"]["objectives"] = ["error", "latency"]
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="names the objectives error,latency, but was built for 3"):
        load_hypernetwork(path)


def convolutions(space, cells):
    return 1.0 + np.isin(cells, (2, 3)).sum(axis=1).astype(np.float64)


def test_memory_is_counted_as_one_deploys_it():
    space = get_space("nasbench201")
    # A dead edge costs nothing; a dead network has no other form than the unfolded one.
    cells = np.array([[3, 0, 3, 0, 0, 0], [3, 0, 0, 3, 0, 0], [0, 0, 0, 3, 0, 0], [0] * 6])
    sizes = memory_mib(space, cells)
    for size, cell, folded in zip(sizes, cells, (False, True, True, False), strict=True):
        graph = space.layers(space.architecture(cell), folded=folded)
        assert size == pytest.approx(analytic_mib(graph.n_params, graph.peak_activation_elements))
    assert sizes[1] == sizes[2]
    assert memory_mib(space, cells[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("error", "latency", "energy"), "no shipped model knows it"),
        (("error", "memory"), "are not what a hypernetwork can learn"),
        (("error", "latency", "beauty"), "are not what a hypernetwork can learn"),
        (("error", "latency", "latency"), "are not what a hypernetwork can learn"),
    ],
)
def test_objectives_nothing_is_known_of(names, message):
    with pytest.raises(ConfigError, match=message):
        checked_objectives(names)
