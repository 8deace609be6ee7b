"""Algorithm 1 on a space small enough to know the answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError  # noqa: E402
from hwnas_sdk.search.modnas.architect import ESTIMATORS  # noqa: E402
from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan  # noqa: E402
from hwnas_sdk.search.modnas.loop import SCHEMES, ModnasPlan, search_all  # noqa: E402
from hwnas_sdk.search.modnas.predicted import PredictedHardware, PredictedResponse  # noqa: E402
from hwnas_sdk.search.modnas.proposals import propose  # noqa: E402

SIZES = (3, 3)
EVERY = np.array(list(itertools.product(range(3), repeat=2)))
SIZE_OF_NET = EVERY.sum(axis=1) / 4.0
ERROR = torch.from_numpy((1.0 - SIZE_OF_NET).reshape(SIZES)).float()
# Device 0 pays for the first decision, device 1 for the second.
COSTS = torch.from_numpy(
    np.stack([(EVERY @ w / 4.0).reshape(1, *SIZES) for w in ((1.8, 0.2), (0.2, 1.8))])
).float()
DEVICES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
SIZES_PLAN = HypernetworkPlan(choices=SIZES, n_features=2, bank=8, form="knots", n_knots=5)


def run(checkpoint=None, judge=None, **options):
    plan = ModnasPlan(
        **{"epochs": 6, "steps": 30, "preferences": 4, "learning_rate": 0.05, **options}
    )
    return search_all(
        SIZES_PLAN, PredictedResponse(ERROR), PredictedHardware(COSTS), DEVICES, plan,
        judge=judge, checkpoint=checkpoint, checkpoint_every_s=0.0,
    )  # fmt: skip


def best(device, preference):
    loss = preference[0] * ERROR.flatten() + preference[1] * COSTS[device].flatten()
    return float(loss.min()), loss


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_finds_the_best_architecture_of_each_device(scheme):
    net = run(scheme=scheme).hypernetwork
    preferences = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    for device in range(2):
        for preference, genotype in zip(
            preferences, propose(net, DEVICES[device].numpy(), preferences), strict=True
        ):
            least, loss = best(device, preference)
            found = loss[int(np.ravel_multi_index(genotype, SIZES))]
            assert found <= least + 0.02


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_lowers_the_loss(estimator):
    net = run(estimator=estimator).hypernetwork
    genotypes = propose(net, DEVICES[0].numpy(), np.array([[0.95, 0.05], [0.05, 0.95]]))
    assert genotypes[0].tolist() == [2, 2]
    assert genotypes[1].tolist() == [0, 0] or genotypes[1][0] == 0


def test_devices_get_different_architectures():
    net = run(epochs=12).hypernetwork
    half = np.array([[0.5, 0.5]])
    first, second = (propose(net, device.numpy(), half)[0].tolist() for device in DEVICES)
    assert first == [0, 2]
    assert second == [2, 0]


class Counting(PredictedResponse):
    """A lower level with a state: it counts what it learned."""

    def __init__(self):
        super().__init__(ERROR)
        self.learned = 0

    def learn(self, choices, weights):
        assert choices.shape[1:] == (2, 3)
        assert len(weights) == len(choices)
        self.learned += 1

    def state_dict(self):
        return {"learned": self.learned}

    def load_state_dict(self, state):
        self.learned = state["learned"]


def test_a_killed_search_ends_in_the_same_weights(tmp_path):
    """Killed between two epochs, and in the middle of one (its work is lost, not doubled)."""
    path = tmp_path / "search.pt"
    plan = {"scheme": "mgd", "epochs": 4, "steps": 7}

    class KilledError(Exception):
        pass

    def go(response, judge=None):
        return search_all(
            SIZES_PLAN, response, PredictedHardware(COSTS), DEVICES,
            ModnasPlan(preferences=2, **plan), judge=judge, checkpoint=path,
            checkpoint_every_s=0.0,
        )  # fmt: skip

    whole = search_all(
        SIZES_PLAN, Counting(), PredictedHardware(COSTS), DEVICES, ModnasPlan(preferences=2, **plan)
    )

    class DiesAt(Counting):
        def learn(self, choices, weights):
            super().learn(choices, weights)
            if self.learned == 17:
                raise KilledError

    with pytest.raises(KilledError):
        go(DiesAt())
    response = Counting()
    resumed = go(response)
    assert response.learned == 28
    for a, b in zip(
        whole.hypernetwork.parameters(), resumed.hypernetwork.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert go(Counting()).hypernetwork is not None  # finished: returns at once


def test_other_checkpoints_are_refused(tmp_path):
    path = tmp_path / "search.pt"
    run(path, epochs=1, steps=1)
    with pytest.raises(ModelError, match="another search"):
        run(path, epochs=2, steps=1)
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be read"):
        run(path, epochs=1, steps=1)


def test_history_and_bounds():
    result = run(judge=lambda net: {"hv": 0.5}, epochs=4, steps=1, evaluate_every=3)
    assert [row["epoch"] for row in result.history] == [3, 4]
    # A bound of 1 drops the hardware objective: the most accurate network for every preference.
    net = run(bound=1.0, epochs=8).hypernetwork
    preferences = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert propose(net, DEVICES[0].numpy(), preferences).tolist() == [[2, 2], [2, 2]]


def test_a_warm_up_teaches_the_lower_level_only():
    response = Counting()
    plan = ModnasPlan(epochs=3, steps=2, warm_up=2, preferences=2)
    after = []
    search_all(
        SIZES_PLAN, response, PredictedHardware(COSTS), DEVICES, plan,
        judge=lambda net: after.append([p.clone() for p in net.parameters()]) or {},
    )  # fmt: skip
    assert response.learned == 6
    same = [all(torch.equal(a, b) for a, b in zip(after[0], net, strict=True)) for net in after]
    assert same == [True, True, False]


def test_exact_hardware_leaves_chance_to_the_task_loss():
    """With all weight on the hardware every draw gives the same gradient, so seeds agree."""
    found = []
    for seed in (0, 1):
        plan = {"epochs": 4, "bound": None, "scheme": "mean", "estimator": "reinmax"}
        net = run(exact_hardware=True, seed=seed, **plan).hypernetwork
        found.append(propose(net, DEVICES[0].numpy(), np.array([[0.0, 1.0]]))[0].tolist())
    assert found == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_up": 100}, "leaves none of 100"),
        ({"scheme": "magic"}, "magic"),
        ({"epochs": 0}, "epochs"),
        ({"bound": 2.0}, "between 0"),
    ],
)
def test_impossible_plans_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        ModnasPlan(**options)


def test_device_vectors_must_fit():
    with pytest.raises(ModelError, match="device vectors"):
        search_all(
            SIZES_PLAN, PredictedResponse(ERROR), PredictedHardware(COSTS), torch.zeros(2, 3),
            ModnasPlan(epochs=1),
        )  # fmt: skip
