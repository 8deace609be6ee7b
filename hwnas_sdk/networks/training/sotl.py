"""Choosing among candidates by how fast they learn: the sum over training losses (SoTL).

Source: Ru et al., NeurIPS 2021; MODNAS uses it to pick what is trained to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.networks.training.fit import TrainPlan, TrainResult, moved, new_module, train
from hwnas_sdk.networks.training.images import ImageSplits
from hwnas_sdk.spaces import SearchSpace

EPOCHS: Final = 12
SEED: Final = 777
_NEW_SHARE: Final = 0.99


def sotl_score(losses: Sequence[float], *, new_share: float = _NEW_SHARE) -> float:
    """Sum of the moving average of training losses by epoch; lower is better.

    ema_0 = loss_0, ema_t = (1 - mu) ema_{t-1} + mu loss_t. With the authors' mu = 0.99 the weight
    is on the new loss, so this is nearly the plain sum.

    Raises: DataError without a loss, or when one is not finite.
    """
    if not losses or not np.isfinite(losses).all():
        raise DataError(f"no sum over the training losses {list(losses)[:3]}: need finite ones")
    average, total = losses[0], 0.0
    for loss in losses:
        average = (1.0 - new_share) * average + new_share * loss
        total += average
    return total


def short_training(
    space: SearchSpace,
    architecture: Architecture,
    images: ImageSplits,
    plan: TrainPlan,
    *,
    torch_device: str = "cpu",
    checkpoint: Path | None = None,
    on_event: EventSink = ignore,
) -> TrainResult:
    """Train a candidate as one deploys it for the few epochs that `sotl_score` sums.

    The authors' plan is `EPOCHS` epochs with `SEED` on half of CIFAR-10's training images. All
    candidates must have the same plan and images.

    Args:
        space: of the architecture.
        architecture: the candidate.
        images: of a task the space builds networks for.
        plan: how.
        torch_device: where torch works.
        checkpoint: see `train`.
        on_event: told after each epoch.

    Raises: SpaceError for a dead cell; ModelError when the training diverges; ConfigError for an
        unknown torch device.
    """
    graph = space.layers(architecture, dataset=images.task.name, folded=True)
    module = moved(new_module(graph, seed=plan.seed), torch_device)
    return train(module, images, plan, checkpoint=checkpoint, identity=graph.id, on_event=on_event)
