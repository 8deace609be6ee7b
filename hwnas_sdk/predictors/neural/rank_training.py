"""How heads on shared encoders are trained to rank: the plan, the labels, one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.neural.encoders import (
    ArchitectureEncoder,
    EncoderSizes,
    Inputs,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.fit import FitPlan, FitResult, fit
from hwnas_sdk.predictors.neural.losses import LOSSES, batch_ranks
from hwnas_sdk.predictors.population import live_rows
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]

_CHUNK: Final = 4096
_MIN_LABELS: Final = 20
_PAPER_BATCH: Final = 18
_LARGER_BATCH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """How a rank network is trained.

    Attributes:
        loss: a name of `losses.LOSSES`.
        epochs: at most.
        batch_size: architectures whose ranks are compared; None: 18 for two objectives (the
            paper's), 32 for more, because three objectives put most of a small batch on one front.
        learning_rate: of the head.
        patience: epochs without a better order of the held-out families before it stops.
        held_out: share of function families the early stop judges on.
        frozen_share: share of `epochs` during which the encoders stand still.
        encoder_rate: learning rate of the encoders relative to that of the head.
    """

    loss: str = "listwise"
    epochs: int = 200
    batch_size: int | None = None
    learning_rate: float = 1e-3
    patience: int = 30
    held_out: float = 0.2
    frozen_share: float = 0.0
    encoder_rate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        if self.loss not in LOSSES:
            raise ModelError(f"unknown rank loss {self.loss!r}", hint=f"one of {', '.join(LOSSES)}")

    def batch_of(self, n_objectives: int) -> int:
        """Architectures of a batch."""
        return self.batch_size or (_PAPER_BATCH if n_objectives == 2 else _LARGER_BATCH)


@dataclass(frozen=True)
class Labelled:
    """Architectures of one platform. Shapes: genes (n, d), objectives (n, m)."""

    genes: NDArray[np.int64]
    objectives: Floats


@dataclass(frozen=True)
class Task:
    """One head, the inputs of its training set, and the loss of (scores, rows)."""

    head: nn.Module
    inputs: Inputs
    loss: Callable[[Tensor, Tensor], Tensor]


def new_head(sizes: EncoderSizes, seed: int) -> nn.Module:
    """Three fully connected layers z -> 64 -> 32 -> 1."""
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(sizes.z, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )


def rank_loss(name: str, objectives: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss of scores against the Pareto ranks of the rows within their batch.

    The objectives stay on the CPU, where ranks are counted, wherever the scores are.
    """
    loss = LOSSES[name]
    return lambda scores, rows: loss(scores, batch_ranks(objectives[rows.cpu()]).to(scores.device))


def train_heads(
    encoder: ArchitectureEncoder,
    tasks: list[Task],
    judge: Callable[[], float] | None,
    plan: FitPlan,
    *,
    frozen_share: float = 0.0,
    encoder_rate: float = 1.0,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    on_event: EventSink = ignore,
    task: str = "train rank",
    torch_device: str = "cpu",
) -> FitResult:
    """Train heads on an encoder that is frozen for the first `frozen_share` of the epochs.

    `judge` looks at modules on the place that `torch_device` names; all are back on the CPU at the
    end. `checkpoint`, `identity`, `on_event` and `task` are those of `fit`.
    """
    model = nn.ModuleDict({"encoder": encoder, "heads": nn.ModuleList(t.head for t in tasks)})
    place = chosen_torch_device(torch_device)
    model.to(place)
    tasks = [replace(one, inputs=one.inputs.to(place)) for one in tasks]
    thaw_at = round(frozen_share * plan.epochs)
    encoder.eval()
    codes: list[Tensor] = []
    if thaw_at > 0:
        with torch.no_grad():
            codes = [encoder(one.inputs).z for one in tasks]
    sizes = [len(one.inputs) for one in tasks]
    frozen = True

    def before_epoch(epoch: int) -> None:
        nonlocal frozen
        frozen = epoch < thaw_at
        encoder.requires_grad_(not frozen)

    def loss(rows: Tensor) -> Tensor:
        losses = []
        for number, (one, size) in enumerate(zip(tasks, sizes, strict=True)):
            mine = rows[rows < size]  # platforms may have fewer labels than others
            if len(mine) > 1:
                z = codes[number][mine] if frozen else encoder(one.inputs[mine]).z
                losses.append(one.loss(one.head(z)[:, 0], mine))
        return torch.stack(losses).sum()

    heads = [p for one in tasks for p in one.head.parameters()]
    groups: list[dict[str, Any]] = [{"params": heads}]
    if frozen_share < 1.0:
        rate = encoder_rate * plan.learning_rate
        groups.append({"params": list(encoder.parameters()), "lr": rate})
    result = fit(
        model,
        loss,
        max(sizes),
        plan,
        judge=judge,
        groups=groups,
        before_epoch=before_epoch,
        checkpoint=checkpoint,
        identity=identity,
        on_event=on_event,
        task=task,
        torch_device=torch_device,
    )
    encoder.requires_grad_(requires_grad=True)
    return result


def predict(
    encoder: ArchitectureEncoder, head: nn.Module, space: SearchSpace, genes: NDArray[np.int64]
) -> Floats:
    """Outputs of a head, (n, d) -> (n,)."""
    encoder.eval()
    device = next(head.parameters()).device
    parts = [np.zeros(0)]
    with torch.no_grad():
        for start in range(0, len(genes), _CHUNK):
            inputs = encoder_inputs(space, genes[start : start + _CHUNK]).to(device)
            parts.append(head(encoder(inputs).z)[:, 0].double().cpu().numpy())
    return np.concatenate(parts)


def labelled_rows(
    space: SearchSpace,
    genotypes: NDArray[np.integer],
    error_pct: ArrayLike,
    costs: ArrayLike,
    name: str,
) -> Labelled:
    """Live architectures with every objective, the error first.

    Raises: ModelError for shapes that differ or fewer than 20 rows.
    """
    genes = checked_genotypes(space, genotypes)
    error, columns = np.asarray(error_pct, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if error.shape != (len(genes),) or columns.ndim != 2 or len(columns) != len(genes):
        raise ModelError(
            f"{name}: {error.shape} errors and {columns.shape} costs for {len(genes)} architectures"
        )
    objectives = np.column_stack([error, columns])
    kept = np.isfinite(objectives).all(axis=1) & live_rows(space, genes)
    if kept.sum() < _MIN_LABELS:
        raise ModelError(
            f"{name}: a rank network needs {_MIN_LABELS} live architectures with every label, "
            f"got {kept.sum()}",
            hint="measure more architectures",
        )
    return Labelled(genes[kept], objectives[kept])


def as_arrays(module: nn.Module, prefix: str) -> dict[str, NDArray[Any]]:
    """Weights and buffers by name."""
    return {f"{prefix}{k}": v.detach().cpu().numpy() for k, v in module.state_dict().items()}


def from_arrays(module: nn.Module, tensors: Mapping[str, NDArray[Any]], prefix: str) -> None:
    """Inverse of `as_arrays`. Raises: RuntimeError when weights are missing or do not fit."""
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in own.items()})
