"""From logits to sampled decisions with a gradient (MODNAS, section 3, "Architect").

Every estimator returns, for logits (n, d, c), a tensor of that shape whose rows are one-hot in the
forward pass; they differ in what flows back. "exact" samples nothing and returns probabilities,
for objectives that know their expectation (`objectives.multilinear`).

Choices that a decision does not have are logits of minus infinity; they are never drawn and get no
gradient.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Estimator = Literal["reinmax", "straight-through", "gdas", "exact"]
ESTIMATORS: Final[tuple[str, ...]] = get_args(Estimator)


def decide(
    logits: Tensor,
    estimator: Estimator = "reinmax",
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one choice per decision.

    Shapes: logits (n, d, c) -> (n, d, c), one-hot (probabilities for "exact").
    Raises: ValueError for an unknown estimator or a temperature that is not positive.
    """
    if temperature <= 0.0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    if estimator == "reinmax":
        return reinmax(logits, temperature, generator)
    if estimator == "straight-through":
        probabilities = torch.softmax(logits, dim=-1)
        return _hard(_draw(probabilities.detach(), generator), probabilities)
    if estimator == "gdas":
        return _gdas(logits, temperature, generator)
    if estimator == "exact":
        return torch.softmax(logits, dim=-1)
    raise ValueError(f"unknown estimator {estimator!r}: one of {', '.join(ESTIMATORS)}")


def reinmax(
    logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """ReinMax: second-order accurate; at temperature 1 unbiased for quadratic functions.

    Source: Liu et al. (NeurIPS 2023), algorithm 2: with p the probabilities, D the draw and
    q = (p_temperature + D) / 2, the gradient is that of 2 softmax(log q) - p / 2.
    """
    probabilities = torch.softmax(logits, dim=-1)
    with torch.no_grad():
        drawn = _draw(probabilities, generator)
        mean = 0.5 * (torch.softmax(logits / temperature, dim=-1) + drawn)
    # softmax(detached offset + logits) has the value `mean` and the gradient of a softmax there.
    there = mean > 0.0
    offset = torch.where(there, mean.clamp_min(1e-38).log() - logits.detach(), 0.0)
    shifted = (offset + logits).masked_fill(~there, -torch.inf)
    surrogate = 2.0 * torch.softmax(shifted, dim=-1) - 0.5 * probabilities
    return _hard(drawn, surrogate)


def best_choices(logits: Tensor) -> Tensor:
    """The most probable choice of each decision, (n, d, c) -> (n, d) int64."""
    return logits.argmax(dim=-1)


def choice_mask(choices: tuple[int, ...]) -> Tensor:
    """Which of the largest number of choices each decision has, (d, c) bool."""
    return torch.arange(max(choices))[None] < torch.tensor(choices)[:, None]


def _gdas(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Gumbel-softmax with a hard forward pass (Dong & Yang, CVPR 2019)."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
    noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))
    soft = torch.softmax((torch.log_softmax(logits, dim=-1) + noise) / temperature, dim=-1)
    drawn = functional.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    return _hard(drawn, soft)


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    index = torch.multinomial(flat, 1, generator=generator)[:, 0]
    hot = functional.one_hot(index, flat.shape[-1]).to(probabilities.dtype)
    return hot.reshape(probabilities.shape)


def _hard(drawn: Tensor, surrogate: Tensor) -> Tensor:
    """The value of `drawn` with the gradient of `surrogate`."""
    return (drawn - surrogate).detach() + surrogate
