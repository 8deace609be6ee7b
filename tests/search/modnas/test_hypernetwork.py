"""The MetaHypernetwork: uniform at first, and what reaches which row."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError  # noqa: E402
from hwnas_sdk.search.modnas.hypernetwork import (  # noqa: E402
    PREFERENCE_FORMS,
    HypernetworkPlan,
    MetaHypernetwork,
)
from hwnas_sdk.search.modnas.proposals import propose, propose_distinct  # noqa: E402

CHOICES = (5, 3, 2)


def make(seed=0, **options):
    plan = HypernetworkPlan(choices=CHOICES, n_features=4, **options)
    return MetaHypernetwork(plan, generator=torch.Generator().manual_seed(seed))


def preferences(n, m=2, seed=0):
    rows = np.random.default_rng(seed).dirichlet(np.ones(m), n)
    return torch.from_numpy(rows).float()


@pytest.mark.parametrize("form", PREFERENCE_FORMS)
@pytest.mark.parametrize("n_objectives", [2, 3])
def test_it_starts_uniform_over_the_choices_there_are(form, n_objectives):
    net = make(form=form, n_objectives=n_objectives)
    devices = torch.rand(2, 4)
    logits = net(preferences(40, n_objectives).reshape(2, 20, -1), devices).flatten(0, 1)
    probabilities = torch.softmax(logits, dim=-1)
    for i, c in enumerate(CHOICES):
        assert (probabilities[:, i, :c] - 1.0 / c).abs().max() < 0.02
        assert not probabilities[:, i, c:].any()


def test_the_published_size():
    plan = HypernetworkPlan(choices=(5,) * 6, n_features=10)
    net = MetaHypernetwork(plan)
    assert sum(p.numel() for p in net.parameters()) == 50 * 10 + 50 * 101 * 30


def test_a_table_learns_one_row_per_preference():
    net = make(form="table", rows=11)
    preference = torch.tensor([[[0.3, 0.7]]])
    net(preference, torch.rand(1, 4))[0, 0, 0, 0].backward()
    touched = net.tables[0].grad.abs().sum(dim=(0, 2)) > 0
    assert torch.nonzero(touched).flatten().tolist() == [3]
    assert net.keys.grad.abs().sum() > 0


def test_knots_interpolate():
    net = make(form="knots", n_knots=11)
    device = torch.rand(1, 4)
    rows = torch.tensor([[[0.2, 0.8], [0.25, 0.75], [0.3, 0.7]]])
    low, middle, high = net(rows, device)[0, :, 0]
    torch.testing.assert_close(middle, 0.5 * (low + high))
    ends = net(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), device)
    assert torch.isfinite(ends[0, :, 0]).all()


def test_attention_is_by_device():
    net = make()
    shares = net.attend(torch.rand(7, 4))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(7))
    plain = make(attention="plain")
    plain.load_state_dict(net.state_dict())
    scores = torch.rand(2, 4)
    products = scores @ net.keys.T / 2.0
    torch.testing.assert_close(net.attend(scores), torch.softmax(torch.sin(products), dim=1))
    torch.testing.assert_close(plain.attend(scores), torch.softmax(products, dim=1))


def test_proposals_are_the_most_probable_choices():
    net = make(form="table", rows=3)
    with torch.no_grad():
        net.tables[0][:, 0, [0, 5, 10]] = 9.0  # cheap preferences: the first choice everywhere
        net.tables[0][:, 2, [4, 7, 11]] = 9.0
    genotypes = propose(net, np.zeros(4), np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert genotypes.tolist() == [[0, 0, 0], [4, 2, 1]]


def test_distinct_proposals_are_the_most_probable_ones():
    """Compared with sorting the whole space by its probability."""
    net = make(seed=1)
    with torch.no_grad():
        net.tables[0].copy_(
            torch.randn(net.tables[0].shape, generator=torch.Generator().manual_seed(2))
        )
    preference = np.array([[0.3, 0.7]])
    with torch.no_grad():
        logits = net(torch.tensor(preference[None]).float(), torch.zeros(1, 1, 4)[0])[0, 0]
    every = np.stack(np.unravel_index(np.arange(30), CHOICES), axis=1)
    score = torch.log_softmax(logits, dim=-1).numpy()[np.arange(3), every].sum(axis=1)
    expected = every[np.argsort(-score)]
    found = propose_distinct(net, np.zeros(4), np.repeat(preference, 7, axis=0))
    np.testing.assert_array_equal(found, expected[:7])
    odd = propose_distinct(
        net, np.zeros(4), np.repeat(preference, 40, axis=0), may=lambda g: g[0] == 1
    )
    assert len(odd) == 6  # all there are
    assert (odd[:, 0] == 1).all()


def test_favourites_come_first():
    net = make(form="table", rows=3)
    with torch.no_grad():
        net.tables[0][:, 0, [0, 5, 10]] = 9.0
        net.tables[0][:, 2, [4, 7, 11]] = 9.0
    found = propose_distinct(net, np.zeros(4), np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    assert found[:2].tolist() == [[0, 0, 0], [4, 2, 1]]
    assert len({tuple(row) for row in found.tolist()}) == 3


def test_plans_survive_json_and_bad_ones_are_refused():
    plan = HypernetworkPlan(choices=CHOICES, n_features=4, form="knots")
    assert HypernetworkPlan.from_json(json.loads(json.dumps(asdict(plan)))) == plan
    with pytest.raises(ModelError, match="magic"):
        HypernetworkPlan(choices=CHOICES, n_features=4, form="magic")
    with pytest.raises(ModelError, match="4"):
        HypernetworkPlan(choices=CHOICES, n_features=4, n_objectives=4)
    with pytest.raises(ModelError, match="positive"):
        HypernetworkPlan(choices=CHOICES, n_features=0)


def test_three_weights_each_have_a_say_in_every_logit_of_knots():
    net = make(form="knots", n_objectives=3)
    device = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        corners = net(torch.eye(3)[None], device)[0][:, net.mask]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (corners[one] != corners[other]).all()
    as_released = make(form="table", n_objectives=3)
    with torch.no_grad():
        first, _, third = as_released(torch.eye(3)[None], device)[0].flatten(1)
    half = len(first) // 2 + len(first) % 2
    assert torch.equal(first[:half], third[:half])  # both have r_2 = 0
