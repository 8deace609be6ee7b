"""HELP's network: a base network, what a device changes in it, and how fast it is tuned.

A hypernetwork turns the device vector into factors on the last three layers; step sizes of the
tuning are learned per weight (Meta-SGD). Source: Lee et al., NeurIPS 2021.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hwnas_sdk.predictors.neural.latency_net import WIDTH, cell_net

Weights = dict[str, Tensor]

STRENGTH: Final = 0.01  # of the modulation
_MODULATED: Final = ("head.architecture_half", "head.hidden", "head.output")


class HelpNet(nn.Module):
    """Base network, hypernetwork and step sizes."""

    def __init__(self, n_references: int, step_size: float) -> None:
        super().__init__()
        self.base = cell_net(n_references)
        n_modulated = WIDTH + 2 * WIDTH + 2 * WIDTH + len(_MODULATED)
        self.hyper = nn.Sequential(
            nn.Linear(n_references, n_references), nn.ReLU(),
            nn.Linear(n_references, 2 * n_modulated),
        )  # fmt: skip
        self.steps = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(torch.full_like(p, step_size))
                for name, p in self.base.named_parameters()
            }
        )

    def modulation(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd of the factors of a device, (k,) -> two (m,)."""
        mean, raw_sd = self.hyper(vector).chunk(2)
        return mean, functional.softplus(raw_sd)

    def modulated(self, drawn: Tensor) -> Weights:
        """Base weights with a device's factors on the last layers; drawn (m,)."""
        weights: Weights = dict(self.base.named_parameters())
        start = 0
        for name in _MODULATED:
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            n = weight.shape[1]
            weights[f"{name}.weight"] = weight * (1.0 + STRENGTH * drawn[start : start + n])
            weights[f"{name}.bias"] = bias + STRENGTH * drawn[start + n]
            start += n + 1
        return weights

    def tuned(
        self, weights: Weights, hot: Tensor, vector: Tensor, target: Tensor, n_steps: int
    ) -> Weights:
        """Weights after tuning on (k, 6, 5) architectures and their (k,) targets."""
        for _ in range(n_steps):
            loss = functional.mse_loss(self.call(weights, hot, vector), target)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=self.training)
            weights = {
                name: weight - self.steps[name.replace(".", "/")] * slope
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            }
        return weights

    def call(self, weights: Weights, hot: Tensor, vector: Tensor) -> Tensor:
        """Prediction with given weights, (n, 6, 5), (k,) -> (n,)."""
        answer: Tensor = functional_call(self.base, weights, (hot, vector[None]))[0]
        return answer
