"""Trains the ensemble of small networks that predicts errors (`predictors.accuracy`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import load_checkpoint, save_checkpoint, seeded
from hwnas_sdk.predictors.accuracy import NetworkEnsemble, to_target

Floats = NDArray[np.float64]

CHECKPOINT_EVERY_S: Final = 30.0


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
    checkpoint: Path | None = None,
) -> NetworkEnsemble:
    """Train all members at once, on one thread and deterministically.

    Loss: Gaussian negative log likelihood whose terms are weighted by variance^0.5, so that the
    mean is also learned where the data are noisy. Source: Seitzer et al., On the pitfalls of
    heteroscedastic uncertainty estimation, ICLR 2022 (beta = 0.5).

    `checkpoint` is a file to continue from and to write to; a killed training that is repeated ends
    in the same weights, a finished one returns at once.

    Shapes: features (n, f), error_pct (n,) in percent.
    Raises: ModelError when the labels are all one value, the training diverged, or the checkpoint
        is damaged or of another training.
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
            layers = _trained(x, y, chosen, seed, on_epoch or (lambda _: None), checkpoint)
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
    checkpoint: Path | None,
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
    kept = _Kept(layers, optimiser, schedule)
    identity = {
        "plan": asdict(plan),
        "seed": seed,
        "learns from": [sha256_bytes(part.numpy().tobytes()) for part in (x, y)],
    }
    if checkpoint is not None:
        load_checkpoint(checkpoint, identity, kept.take, of="training")
    for _ in range(kept.epochs * plan.members):
        rng.permutation(len(x))  # orders of the epochs that are done
    saved_at = time.monotonic()
    for epoch in range(kept.epochs, plan.epochs):
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
        kept.epochs = epoch + 1
        due = kept.epochs == plan.epochs or time.monotonic() - saved_at >= CHECKPOINT_EVERY_S
        if checkpoint is not None and due:
            save_checkpoint(checkpoint, identity, kept.state())
            saved_at = time.monotonic()
        on_epoch(kept.epochs)
    return tuple((w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in layers)


@dataclass
class _Kept:
    """What a checkpoint holds after whole epochs."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epochs: int = 0

    def state(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "layers": [[part.detach() for part in layer] for layer in self.layers],
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def take(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for own, stored in zip(self.layers, state["layers"], strict=True):
                for part, value in zip(own, stored, strict=True):
                    part.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epochs = state["epochs"]
