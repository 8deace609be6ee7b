"""Algorithm 1 on a space small enough to know the answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError  # noqa: E402
from hwnas_sdk.search.modnas.architect import ESTIMATORS  # noqa: E402
from hwnas_sdk.search.modnas.hypernetwork import (  # noqa: E402
    PREFERENCE_FORMS,
    HypernetworkPlan,
    MetaHypernetwork,
)
from hwnas_sdk.search.modnas.loop import (  # noqa: E402
    SCHEMES,
    ModnasPlan,
    _Search,
    search_all,
)
from hwnas_sdk.search.modnas.mgd import common_direction  # noqa: E402
from hwnas_sdk.search.modnas.predicted import PredictedHardware, PredictedResponse  # noqa: E402
from hwnas_sdk.search.modnas.proposals import propose  # noqa: E402
from hwnas_sdk.search.preferences import equidistant  # noqa: E402

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


MEMORY = torch.from_numpy((EVERY[:, 1] / 2.0).reshape(SIZES)).float()
THREE = torch.stack([torch.stack([costs[0], MEMORY]) for costs in COSTS])  # (T, 2, 3, 3)
VECTORS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])


@pytest.mark.parametrize("form", PREFERENCE_FORMS)
def test_three_objectives_have_one_direction_for_all_devices(form):
    """Gradients by the short way are autograd's; their mixture hurts no device (KKT)."""
    sizes = HypernetworkPlan(choices=SIZES, n_features=4, n_objectives=3, bank=3, form=form)
    net = MetaHypernetwork(sizes, generator=torch.Generator().manual_seed(1))
    plan = ModnasPlan(preferences=6, estimator="exact")
    search = _Search(net, PredictedResponse(ERROR), PredictedHardware(THREE), VECTORS, plan, None)

    def again():
        search._rng = np.random.default_rng(5)
        search.generator = torch.Generator().manual_seed(5)

    again()
    gradients = search._device_gradients()
    assert gradients.shape == (2, sum(p.numel() for p in net.parameters()))
    again()
    losses = search._losses(VECTORS, [0, 1]).mean(dim=1)
    for row, loss in zip(gradients, losses, strict=True):
        parts = torch.autograd.grad(loss, search.parameters, retain_graph=True)
        assert torch.allclose(row, torch.cat([part.flatten() for part in parts]), atol=1e-6)
    direction, weights = common_direction(gradients, unit_norm=False)
    assert float(weights.sum()) == pytest.approx(1.0)
    length = float(direction @ direction)
    assert length > 0
    assert all(float(g @ direction) >= length - 1e-5 for g in gradients)


def test_three_objectives_each_rule_where_their_weight_is():
    result = search_all(
        HypernetworkPlan(
            choices=SIZES, n_features=4, n_objectives=3, bank=8, form="knots", n_knots=5
        ),
        PredictedResponse(ERROR), PredictedHardware(THREE), VECTORS,
        ModnasPlan(epochs=10, steps=30, preferences=6, learning_rate=0.05, estimator="exact"),
    )  # fmt: skip
    leaning = np.full((3, 3), 0.05) + 0.85 * np.eye(3)
    error, latency, memory = propose(result.hypernetwork, VECTORS[0].numpy(), leaning).tolist()
    assert error == [2, 2]
    assert latency[0] == 0  # what device 0 pays for
    assert memory[1] == 0
    lattice = equidistant(3, 10)
    found = {tuple(row) for row in propose(result.hypernetwork, VECTORS[0].numpy(), lattice)}
    assert len(found) > 2


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
