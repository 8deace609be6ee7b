"""Choosing among candidates by how fast they learn: the sum over training losses (SoTL).

Source: Ru et al., NeurIPS 2021; MODNAS uses it to pick what is trained to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.networks.training.fit import TrainPlan, new_module, train
from hwnas_sdk.networks.training.images import ImageSplits
from hwnas_sdk.pareto import non_dominated_mask
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


def sotl_scores(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    images: ImageSplits,
    plan: TrainPlan,
    *,
    on_event: EventSink = ignore,
) -> NDArray[np.float64]:
    """Train each candidate for a few epochs from the same seed; returns `sotl_score` of each, (n,).

    The authors' plan is `EPOCHS` epochs with `SEED` on half of CIFAR-10's training images.
    Raises: SpaceError for a dead cell; ModelError when a training diverges.
    """
    scores = []
    for number, architecture in enumerate(architectures):
        graph = space.layers(architecture, dataset=images.task.name, folded=True)
        module = new_module(graph, seed=plan.seed)
        scores.append(sotl_score(train(module, images, plan).losses))
        on_event(Event("score candidates", number + 1, len(architectures)))
    return np.array(scores)


def authors_plan(plan: TrainPlan) -> TrainPlan:
    """`plan` with MODNAS' epochs and seed."""
    return replace(plan, epochs=EPOCHS, seed=SEED)


def sotl_front(scores: NDArray[np.float64], latencies_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which candidates nobody dominates in (score, latency), as indices.

    Their true accuracies are what is reported afterwards. Shapes: (n,), (n,) -> (k,).
    """
    return np.flatnonzero(non_dominated_mask(np.column_stack([scores, latencies_ms])))
