"""Estimators: one-hot in the forward pass, and how far their gradients can be trusted."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.search.modnas import architect  # noqa: E402
from hwnas_sdk.search.modnas.architect import (  # noqa: E402
    ESTIMATORS,
    best_choices,
    choice_mask,
    decide,
)


def every_draw(d, c):
    """All one-hot matrices (c^d, d, c)."""
    rows = torch.tensor(list(itertools.product(range(c), repeat=d)))
    return torch.nn.functional.one_hot(rows, c).double()


def expected_gradient(monkeypatch, estimator, logits, function, **options):
    """Gradient of the estimator, averaged exactly over all draws."""
    total = torch.zeros_like(logits)
    probabilities = torch.softmax(logits, dim=-1)
    for drawn in every_draw(*logits.shape):
        weight = (probabilities * drawn).sum(dim=-1).prod()
        monkeypatch.setattr(architect, "_draw", lambda p, g, drawn=drawn: drawn[None])
        theta = logits.clone().requires_grad_()
        value = function(decide(theta[None], estimator, **options)[0])
        (gradient,) = torch.autograd.grad(value, theta)
        total += weight * gradient
    return total


def true_gradient(logits, function):
    theta = logits.clone().requires_grad_()
    probabilities = torch.softmax(theta, dim=-1)
    value = sum(
        (probabilities * drawn).sum(dim=-1).prod() * function(drawn)
        for drawn in every_draw(*logits.shape)
    )
    return torch.autograd.grad(value, theta)[0]


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    linear = torch.randn(6, generator=generator, dtype=torch.float64)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return logits, linear, matrix + matrix.T


def test_reinmax_is_unbiased_for_quadratic_functions(monkeypatch, problem):
    """Liu et al. 2023, theorem 3.1: the trapezoidal rule is exact to second order."""
    logits, linear, matrix = problem

    def within(x):  # quadratic within each decision, none between two
        return (linear * x.flatten()).sum() + sum(row @ matrix[:3, :3] @ row for row in (x - 0.3))

    expected = true_gradient(logits, within)
    found = expected_gradient(monkeypatch, "reinmax", logits, within)
    assert (found - expected).abs().max() < 1e-12
    naive = expected_gradient(monkeypatch, "straight-through", logits, within)
    assert (naive - expected).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ["reinmax", "straight-through"])
def test_linear_functions_are_unbiased(monkeypatch, problem, estimator):
    logits, linear, _ = problem

    def function(x):
        return (linear * x.flatten()).sum()

    expected = true_gradient(logits, function)
    found = expected_gradient(monkeypatch, estimator, logits, function)
    assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_reinmax_gradient_is_the_formula_of_the_specification(monkeypatch, problem, temperature):
    logits, linear, _ = problem
    drawn = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    monkeypatch.setattr(architect, "_draw", lambda p, g: drawn[None])
    theta = logits.clone().requires_grad_()
    upstream = linear.reshape(2, 3)
    value = (upstream * decide(theta[None], "reinmax", temperature=temperature)[0]).sum()
    (found,) = torch.autograd.grad(value, theta)
    pi = torch.softmax(logits, dim=-1)
    mean = 0.5 * (torch.softmax(logits / temperature, dim=-1) + drawn)

    def along(p):
        return p * (upstream - (upstream * p).sum(dim=-1, keepdim=True))

    assert (found - (2 * along(mean) - 0.5 * along(pi))).abs().max() < 1e-12


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_forward_values(estimator):
    mask = choice_mask((3, 5, 1))
    logits = torch.randn(64, 3, 5, generator=torch.Generator().manual_seed(0))
    logits = logits.masked_fill(~mask, -torch.inf).requires_grad_()
    choices = decide(logits, estimator, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(choices.sum(dim=-1), torch.ones(64, 3))
    assert not choices[:, ~mask].any()
    if estimator != "exact":
        assert ((choices.detach().round() - choices).abs() < 1e-6).all()
        again = decide(logits, estimator, generator=torch.Generator().manual_seed(1))
        assert torch.equal(choices, again)
    (choices * torch.arange(5.0)).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:, ~mask].any()
    assert logits.grad.abs().sum() > 0


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([[[0.7, 0.2, 0.1]]])).expand(20_000, 1, 3)
    for estimator in ("reinmax", "straight-through", "gdas"):
        share = decide(logits, estimator, generator=torch.Generator().manual_seed(0)).mean(dim=0)
        assert (share[0] - torch.tensor([0.7, 0.2, 0.1])).abs().max() < 0.015


def test_mistakes_are_named():
    logits = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="magic"):
        decide(logits, "magic")
    with pytest.raises(ValueError, match="temperature"):
        decide(logits, temperature=0.0)
    assert best_choices(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])).tolist() == [[1, 0]]
