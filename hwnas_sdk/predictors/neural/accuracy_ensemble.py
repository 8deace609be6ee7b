"""Trains the ensemble of small networks that predicts errors (`predictors.accuracy`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors.accuracy import NetworkEnsemble, to_target

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePlan:
    """How to train; the defaults made the shipped weights.

    Attributes:
        members: networks, each with its own weights and order of rows.
        hidden: widths of the hidden layers.
        epochs: passes over the labels.
        batch_size: rows per step; fewer labels than twice this make it smaller.
        learning_rate: largest of the one-cycle schedule.
        weight_decay: AdamW's.
    """

    members: int = 8
    hidden: tuple[int, ...] = (64, 64, 64)
    epochs: int = 160
    batch_size: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 0.1


def train_ensemble(
    features: Floats,
    error_pct: Floats,
    plan: EnsemblePlan | None = None,
    *,
    seed: int = 0,
    on_epoch: Callable[[int], None] | None = None,
) -> NetworkEnsemble:
    """Train all members at once, on one thread and deterministically.

    Loss: Gaussian negative log likelihood whose terms are weighted by variance^0.5, so that the
    mean is also learned where the data are noisy. Source: Seitzer et al., On the pitfalls of
    heteroscedastic uncertainty estimation, ICLR 2022 (beta = 0.5).

    Shapes: features (n, f), error_pct (n,) in percent.
    Raises: ModelError when the labels are all one value or the training diverged.
    """
    chosen = plan or EnsemblePlan()
    target = to_target(error_pct)
    shift, scale = float(target.mean()), float(target.std())
    if not scale > 0:
        raise ModelError("nothing to learn from: all errors are the same")
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    try:
        with seeded(seed):
            x = torch.tensor(features, dtype=torch.float32)
            y = torch.tensor((target - shift) / scale, dtype=torch.float32)
            layers = _trained(x, y, chosen, seed, on_epoch or (lambda _: None))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=deterministic)
    if not all(np.isfinite(part).all() for layer in layers for part in layer):
        raise ModelError("the training diverged", code="diverged", hint="name more labels")
    return NetworkEnsemble(layers, shift, scale)


def _trained(
    x: torch.Tensor,
    y: torch.Tensor,
    plan: EnsemblePlan,
    seed: int,
    on_epoch: Callable[[int], None],
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
    """Weights (members, in, out) and biases (members, 1, out) of each layer."""
    sizes = (x.shape[1], *plan.hidden, 2)
    layers = [
        (
            (torch.randn(plan.members, a, b) * (2.0 / a) ** 0.5).requires_grad_(),
            torch.zeros(plan.members, 1, b, requires_grad=True),
        )
        for a, b in pairwise(sizes)
    ]
    parameters = [tensor for layer in layers for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    batch = min(plan.batch_size, max(len(x) // 2, 1))
    n_steps = plan.epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, n_steps)
    rng = child_rng(seed, "train_priors", "batches")  # the name is part of the shipped weights
    for epoch in range(plan.epochs):
        order = torch.from_numpy(np.stack([rng.permutation(len(x)) for _ in range(plan.members)]))
        for start in range(0, len(x) - batch + 1, batch):
            rows = order[:, start : start + batch]
            value = x[rows]
            for i, (weight, bias) in enumerate(layers):
                value = torch.baddbmm(bias, torch.relu(value) if i else value, weight)
            mean, log_variance = value[..., 0], value[..., 1].clamp(-9.0, 4.0)
            variance = log_variance.exp()
            loss = 0.5 * (log_variance + (y[rows] - mean) ** 2 / variance)
            loss = (loss * variance.detach() ** 0.5).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimiser.step()
            schedule.step()
        on_epoch(epoch + 1)
    return tuple((w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in layers)
