"""train hypernetwork --task: a supernetwork learns along the way, and both are files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_folders import striped

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ConfigError, ModelError  # noqa: E402
from hwnas_sdk.networks import supernet_response  # noqa: E402
from hwnas_sdk.networks.supernet_response import (  # noqa: E402
    SupernetResponse,
    inherited_accuracy_pct,
    search_halves,
)
from hwnas_sdk.networks.training.tasks import TASKS  # noqa: E402
from hwnas_sdk.spaces import get_space  # noqa: E402
from hwnas_sdk.workflows import search_devices  # noqa: E402
from hwnas_sdk.workflows.hypernetwork_judges import InheritedJudge  # noqa: E402
from hwnas_sdk.workflows.hypernetworks import SearchDevices  # noqa: E402
from hwnas_sdk.workflows.supernet_files import load_supernet, supernet_of  # noqa: E402
from hwnas_sdk.workflows.train_hypernetwork import TWO, load_hypernetwork  # noqa: E402
from hwnas_sdk.workflows.train_supernet import (  # noqa: E402
    default_search,
    train_task_hypernetwork,
)

IMAGES = search_halves(striped(96))
TINY = {"epochs": 2, "steps": 1, "batch_size": 8, "channels": 2, "cells": 1}
LIVE = (3, 1, 3, 1, 1, 3)


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def _one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def go(path: Path, **changes):
    search = default_search(TASKS["digits"], len(IMAGES.train), **{**TINY, **changes})
    return train_task_hypernetwork(path, IMAGES, search, checkpoint_every_s=0.0)


def test_killed_and_repeated_it_ends_in_the_same_weights(tmp_path, monkeypatch):
    """Killed in the middle of the second epoch: its work is lost, not doubled."""
    go(tmp_path / "whole.safetensors")
    learn, learned = SupernetResponse.learn, []

    def dies(self, choices, weights):
        learn(self, choices, weights)
        learned.append(1)
        if len(learned) == 2:
            raise KilledError

    killed = tmp_path / "killed.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(SupernetResponse, "learn", dies)
        with pytest.raises(KilledError):
            go(killed)
    assert killed.with_suffix(".checkpoint").exists()
    assert not killed.exists()
    with pytest.raises(ModelError, match="another search"):
        go(killed, batch_size=9)  # the same search with other images per step is another one
    answer = go(killed)
    assert Path(answer["supernet"]) == supernet_of(killed)
    assert sorted(path.name for path in tmp_path.glob("killed*")) == [
        "killed.json", "killed.safetensors", "killed.supernet.json", "killed.supernet.safetensors",
    ]  # fmt: skip
    for suffix in (".safetensors", ".supernet.safetensors"):
        whole, resumed = (tmp_path / f"{name}{suffix}" for name in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "net.safetensors"
    answer = go(path, epochs=1, seed=5)
    supernet, card = load_supernet(supernet_of(path))
    assert card.data["fingerprint"] == IMAGES.fingerprint()
    assert card.settings["response"]["seed"] == 5
    assert supernet.config.channels == (2, 4, 8)
    part = IMAGES.valid
    assert 0 <= inherited_accuracy_pct(supernet, [LIVE], IMAGES, part)[0] <= 100
    trained = load_hypernetwork(path)
    assert trained.objectives == ("error", "latency")
    plan = trained.card.settings["plan"]
    assert (plan["running_task"], plan["estimator"]) == (True, "reinmax")
    assert set(answer["metrics"]) >= {"inherited_hv", "random_inherited_hv", "protocol"}
    assert 0 < answer["metrics"]["inherited_hv"] < 1
    values = json.loads(supernet_of(path).with_suffix(".json").read_text())
    values["settings"]["config"]["cells_per_stage"] = 2
    supernet_of(path).with_suffix(".json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="incomplete supernetwork"):
        load_supernet(supernet_of(path))
    with pytest.raises(ModelError, match=r"of kind 'hypernetwork', 'supernetwork' is needed"):
        load_supernet(path)


def test_three_objectives_on_images(tmp_path, monkeypatch):
    monkeypatch.setattr(search_devices, "memory_mib", lambda space, cells: 1.0 + cells.sum(axis=1))
    path = tmp_path / "net.safetensors"
    search = default_search(TASKS["digits"], len(IMAGES.train), **{**TINY, "epochs": 1, "steps": 1})
    answer = train_task_hypernetwork(
        path, IMAGES, search, objectives=("latency", "memory", "error")
    )
    assert answer["objectives"] == ["error", "latency", "memory"]
    assert load_hypernetwork(path).net.plan.n_objectives == 3
    assert "mean_scaled_memory" in answer["metrics"]
    # As many random networks as proposals, and 21 preferences for three objectives.
    protocol = answer["metrics"]["protocol"]
    assert protocol.startswith("hypervolume of 21 proposals in")
    assert f"on {len(IMAGES.valid)} images held out" in protocol
    assert protocol.endswith("random: of 21 random networks")


@pytest.mark.parametrize(("objectives", "n"), [(TWO, 24), ((*TWO, "memory"), 21)])
def test_what_judges_is_counted(monkeypatch, objectives, n):
    """A last batch of 44 of 256 images does not judge."""
    space = get_space("nasbench201")
    images = search_halves(striped(900))
    devices = SearchDevices(
        np.zeros((1, 10 * (len(objectives) - 1))),
        np.random.default_rng(0).random((1, len(objectives) - 1, space.size)),
    )
    judge = InheritedJudge(space, None, replace(images, valid=images.train.take(slice(0, 300))),
                           devices, objectives)  # fmt: skip
    asked = []

    def accuracies(supernet, genotypes, images, part):
        asked.append(genotypes)
        return np.full(len(genotypes), 50.0)

    monkeypatch.setattr(supernet_response, "inherited_accuracy_pct", accuracies)
    judge.random(0)
    assert (judge.n_images, judge.n_proposals) == (256, n)
    assert len(asked[0]) == n


def test_the_papers_sizes_are_those_of_photographs():
    search = default_search(TASKS["cifar10"], 25_000)
    assert search.config.channels == (16, 32, 64)
    assert (search.config.cells_per_stage, search.response.cutout) == (5, 16)
    assert (search.modnas.epochs, search.modnas.steps) == (100, 97)
    assert search.response.n_steps == 9_700
    assert (search.response.learning_rate, search.modnas.learning_rate) == (0.025, 3.9e-3)


def test_one_network_at_a_time_has_no_exact_expectation():
    with pytest.raises(ConfigError, match="one at a time"):
        default_search(TASKS["digits"], 100, estimator="exact")
