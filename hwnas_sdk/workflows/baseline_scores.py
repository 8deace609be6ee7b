"""What BRP-NAS and GATES let a search minimise, learned from a few labels of one device.

Each function takes known accuracies and known latencies and returns a scorer: predicted (error,
latency) of any cells, (n, 6) -> (n, 2), both lower is better. NSGA-II on them is the published
multi-objective use of BRP-NAS; GATES' authors search one objective, of which this is the
straightforward extension.

Both are made for far more labels than a new board gives: BRP-NAS' latency network for 900, GATES
for hundreds. What they reach with ten says what transfer between devices is worth, not what they
can do. The relation is narrower and sees its pairs less often than its authors', to be fitted in
seconds on a CPU; everything else is as `predictors.neural.own_device` describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.spaces import Genotypes

Floats = NDArray[np.float64]
Scores = Callable[[Genotypes], Floats]
"""Cells (n, 6) -> what is minimised, (n, 2): error-like, latency-like."""

RELATION_EPOCHS: Final = 2
"""Passes over all ordered pairs of the known accuracies, 9,900 for 100."""

RELATION_WIDTH: Final = 128
"""Width of the relation's graph convolutions; the paper has 600."""


class FitScores(Protocol):
    """Learn both objectives from labels."""

    def __call__(
        self,
        genotypes_acc: Genotypes,
        errors: Floats,
        genotypes_lat: Genotypes,
        latencies: Floats,
        *,
        seed: int,
    ) -> Scores:
        """Shapes: (a, 6), (a,) in percent, (b, 6), (b,) in ms. Raises: ModelError, SpaceError."""
        ...


def brp_nas_scores(
    genotypes_acc: Genotypes,
    errors: Floats,
    genotypes_lat: Genotypes,
    latencies: Floats,
    *,
    seed: int,
) -> Scores:
    """Place in the binary relation's order, and ms by the graph network.

    The first column is minus the relation's score (log odds), which orders as the predicted rank
    does and needs no second architecture to be known.

    Raises: ModelError for fewer than two accuracies or values that are not finite (latencies:
        positive). Source: BRP-NAS (Dudziak et al., NeurIPS 2020).
    """
    from hwnas_sdk.predictors.neural.binary_relation import BinaryRelation, RelationPlan
    from hwnas_sdk.predictors.neural.own_device import BrpNasModel

    plan = RelationPlan(epochs=RELATION_EPOCHS, hidden=RELATION_WIDTH)
    accuracies = 100.0 - np.asarray(errors, dtype=np.float64)
    relation = BinaryRelation.fit(genotypes_acc, accuracies, plan=plan, seed=seed)
    latency = BrpNasModel(seed).adapt(genotypes_lat, latencies)
    return lambda genotypes: np.column_stack(
        [-relation.scores(genotypes), latency.predict(genotypes).mean]
    )


def gates_scores(
    genotypes_acc: Genotypes,
    errors: Floats,
    genotypes_lat: Genotypes,
    latencies: Floats,
    *,
    seed: int,
) -> Scores:
    """Two GATES networks, trained on the order of the errors and of the latencies.

    An affine fit to the labels gives the scores the labels' units; it keeps their order.

    Raises: ModelError for fewer than two labels of either kind or values that are not positive.
        Source: GATES (Ning et al., ECCV 2020).
    """
    from hwnas_sdk.predictors.neural.own_device import GatesModel

    error = GatesModel(seed).adapt(genotypes_acc, errors)
    latency = GatesModel(seed).adapt(genotypes_lat, latencies)
    return lambda genotypes: np.column_stack(
        [error.predict(genotypes).mean, latency.predict(genotypes).mean]
    )


FIT_SCORES: Final[Mapping[str, FitScores]] = {"brp-nas": brp_nas_scores, "gates": gates_scores}
