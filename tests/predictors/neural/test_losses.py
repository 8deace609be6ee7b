"""Properties the rank losses must have (and those the printed one has)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hwnas_sdk import pareto

torch = pytest.importorskip("torch")

from hwnas_sdk.predictors.neural.losses import (  # noqa: E402  # noqa: E402
    LOSSES,
    batch_ranks,
    efron,
    listwise,
    pairwise,
    paper_eq8,
)

RANKS = torch.tensor([2, 0, 1, 1, 0, 3, 2, 1])
SINGLE = torch.tensor([4, 0, 7, 1, 2, 5, 3, 6])


def scores(seed=0, n=8):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=n), dtype=torch.float64, requires_grad=True)


def plackett_luce(s, ranks):
    """Written out: each place in turn takes its share of what is left."""
    order = torch.argsort(ranks)
    total = 0.0
    for i in range(len(order)):
        total = total - s[order[i]] + torch.logsumexp(s[order[i:]], 0)
    return total


def test_singletons_are_plackett_luce():
    s = scores()
    wanted = plackett_luce(s, SINGLE) / len(s)
    assert torch.allclose(listwise(s, SINGLE), wanted)
    assert torch.allclose(efron(s, SINGLE), wanted)


def test_listwise_by_its_formula():
    s = scores(1)
    total = 0.0
    for k in range(4):
        rest, front = s[k <= RANKS], s[k == RANKS]
        total = total + len(front) * torch.logsumexp(rest, 0) - front.sum()
    assert torch.allclose(listwise(s, RANKS), total / 8)


def test_efron_by_its_formula_and_as_an_average_of_orders():
    s = scores(2)
    total = 0.0
    for k in range(4):
        rest, front = s[k <= RANKS].exp().sum(), s[k == RANKS]
        m = len(front)
        total = total + sum(torch.log(rest - r / m * front.exp().sum()) for r in range(m))
        total = total - front.sum()
    assert torch.allclose(efron(s, RANKS), total / 8)
    near = 0.3 * s[:4].detach()
    orders = [plackett_luce(near, torch.tensor(p)) for p in itertools.permutations(range(4))]
    average = torch.stack(orders).mean() / 4
    tied = torch.zeros(4, dtype=torch.int64)
    assert abs(float(efron(near, tied) - average)) < 0.02
    assert abs(float(listwise(near, tied) - average)) > 0.2


@pytest.mark.parametrize("name", ["listwise", "efron", "pairwise"])
def test_order_inside_a_front_does_not_matter(name):
    s = scores(3)
    base = LOSSES[name](s, RANKS)
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = torch.from_numpy(rng.permutation(8))
        assert torch.allclose(LOSSES[name](s[order], RANKS[order]), base)
    swapped = s.detach().clone()
    swapped[[1, 4]] = swapped[[4, 1]]  # two members of one front exchange their scores
    assert torch.allclose(LOSSES[name](swapped, RANKS), base)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("ranks", [RANKS, SINGLE, torch.zeros(8, dtype=torch.int64)])
def test_the_gradient_sums_to_zero_and_is_right(name, ranks):
    s = scores(4)
    (gradient,) = torch.autograd.grad(LOSSES[name](s, ranks), s, allow_unused=True)
    assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, ranks), (s,))
    assert torch.allclose(LOSSES[name](s + 3.0, ranks), LOSSES[name](s, ranks))


@pytest.mark.parametrize("name", ["listwise", "pairwise"])
@pytest.mark.parametrize("ranks", [RANKS, SINGLE])
def test_convex(name, ranks):
    for seed in range(20):
        a, b = scores(seed), scores(seed + 100)
        middle = LOSSES[name](0.5 * a + 0.5 * b, ranks)
        ends = 0.5 * LOSSES[name](a, ranks) + 0.5 * LOSSES[name](b, ranks)
        assert float(middle.detach()) <= float(ends.detach()) + 1e-12


def minimise(name, ranks, n, start=None, steps=400):
    s = torch.zeros(n, dtype=torch.float64) if start is None else start.detach().clone()
    s.requires_grad_()
    optimizer = torch.optim.Adam([s], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        LOSSES[name](s, ranks).backward()
        optimizer.step()
    return s.detach()


def test_one_front_makes_scores_alike():
    tied = torch.zeros(6, dtype=torch.int64)
    for name in ("listwise", "efron"):
        s = minimise(name, tied, 6, start=scores(5, 6))
        assert float(s.max() - s.min()) < 1e-3
    assert float(pairwise(scores(5, 6).detach(), tied)) == 0.0


@pytest.mark.parametrize("name", ["listwise", "efron", "pairwise"])
def test_the_minimiser_orders_the_fronts(name):
    s = minimise(name, RANKS, 8)
    for a, b in itertools.permutations(range(8), 2):
        if RANKS[a] < RANKS[b]:
            assert s[a] > s[b]


def test_what_is_wrong_with_the_printed_loss():
    order = torch.arange(18)
    equal = torch.zeros(18, dtype=torch.float64, requires_grad=True)
    value = paper_eq8(equal, order)
    assert float(value.detach()) == pytest.approx(math.lgamma(19), abs=1e-9)  # log 18! = 36.395
    (small,) = torch.autograd.grad(value, equal)
    (large,) = torch.autograd.grad(18 * listwise(equal, order), equal)
    assert float(small.norm()) == pytest.approx(0.22, abs=0.01)
    assert float(large.norm()) == pytest.approx(3.9, abs=0.1)
    best = minimise("paper_eq8", order, 18, start=scores(0, 18) * 0.01, steps=3000)
    assert float(paper_eq8(best, order)) == pytest.approx(35.485, abs=0.01)
    assert float(torch.softmax(best, 0)[0]) == pytest.approx(0.88, abs=0.02)


def test_large_scores_do_not_overflow():
    s = torch.tensor([1000.0, -1000.0, 500.0], requires_grad=True)
    for name in LOSSES:
        value = LOSSES[name](s, torch.tensor([2, 0, 0]))
        assert torch.isfinite(value)
        (gradient,) = torch.autograd.grad(value, s)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("m", [2, 3])
def test_batch_ranks_are_those_of_the_batch(m):
    rng = np.random.default_rng(m)
    points = rng.integers(0, 6, size=(32, m)).astype(float)
    ranks = batch_ranks(torch.tensor(points))
    np.testing.assert_array_equal(ranks, pareto.ranks(points))
    same = (points[:, None] == points[None]).all(axis=2)
    assert (ranks[:, None] == ranks[None]).numpy()[same].all()
    dominated = (points[:, None] <= points[None]).all(axis=2) & ~same
    assert (ranks[:, None] < ranks[None]).numpy()[dominated].all()
