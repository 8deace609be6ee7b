"""What a rank network has to beat: one regression network per objective, ranked by sorting."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.accuracy import to_target
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.neural.encoders import ArchitectureEncoder, Inputs, encoder_inputs
from hwnas_sdk.predictors.neural.fit import FitPlan
from hwnas_sdk.predictors.neural.pretrain import held_out_families
from hwnas_sdk.predictors.neural.rank_training import (
    RankPlan,
    Task,
    labelled_rows,
    new_head,
    predict,
    train_heads,
)
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]


def independent_predictions(
    space: SearchSpace,
    genotypes: NDArray[np.integer],
    error_pct: ArrayLike,
    costs: ArrayLike,
    wanted: NDArray[np.integer],
    *,
    encoder: ArchitectureEncoder,
    plan: RankPlan | None = None,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> Floats:
    """Objectives of `wanted` by one regression network each, to rank by sorting: (q, d) -> (q, m).

    The same encoders, heads, training plan and early stop (on Kendall's tau of the objective) as
    `RankNetwork.train`; the loss is the squared error of the standardised -1 / error or log cost.
    """
    chosen = plan or RankPlan()
    rows = labelled_rows(space, genotypes, error_pct, costs, "independent")
    families = [space.family(space.architecture(g)) for g in rows.genes]
    out = held_out_families(families, chosen.held_out, child_rng(seed, "held out", "independent"))
    inputs = encoder_inputs(space, rows.genes)
    batch = chosen.batch_of(rows.objectives.shape[1])
    columns = []
    for i, column in enumerate(rows.objectives.T):
        values = to_target(column) if i == 0 else np.log(column)
        values = (values - values.mean()) / (values.std() or 1.0)
        target = torch.from_numpy(values[~out].astype(np.float32))
        mine, head = copy.deepcopy(encoder), new_head(encoder.sizes, seed)
        loss = _squared(target)
        held = inputs[torch.from_numpy(out)]
        train_heads(
            mine,
            [Task(head, inputs[torch.from_numpy(~out)], loss)],
            _value_judge(mine, head, held, values[out]),
            FitPlan(
                epochs=chosen.epochs, batch_size=batch, learning_rate=chosen.learning_rate,
                patience=chosen.patience, seed=seed,
            ),
            frozen_share=chosen.frozen_share,
            encoder_rate=chosen.encoder_rate,
            on_event=on_event,
            task="train independent",
        )  # fmt: skip
        columns.append(predict(mine, head, space, checked_genotypes(space, wanted)))
    return np.column_stack(columns)


def _squared(target: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda scores, rows: ((scores - target[rows]) ** 2).mean()


def _value_judge(
    encoder: ArchitectureEncoder, head: nn.Module, inputs: Inputs, values: Floats
) -> Callable[[], float]:
    def judge() -> float:
        return kendall(values, head(encoder(inputs).z)[:, 0].double().numpy()) or 0.0

    return judge
