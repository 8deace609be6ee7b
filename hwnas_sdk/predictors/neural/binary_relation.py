"""BRP-NAS' binary relation predictor: which of two architectures is more accurate.

Two graphs go through one network; their embeddings side by side give two logits, and the target is
the softmax of the two accuracies. Trained on all ordered pairs, it orders more than it can date.

Differs from the paper: no comparison sort. The head is linear in the two embeddings, so the
relation, made antisymmetric, is a difference of one score per architecture: sorting by that score
is the order any comparison sort would reach.

Source: BRP-NAS (Dudziak et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors._samples import checked_cells
from hwnas_sdk.predictors.neural.fit import FitPlan, fit
from hwnas_sdk.predictors.neural.graph_network import GraphNetwork, Graphs, brp_graphs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Genotypes = NDArray[np.integer]
Query = Callable[[Ints], Floats]  # (n, 6) -> accuracies (n,)

_CHUNK: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationPlan:
    """Sizes and training; the defaults are the paper's but for `epochs`, which it does not print.

    Attributes:
        epochs: passes over all ordered pairs (9,900 for 100 architectures).
        hidden: width of a graph convolution.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3.5e-4
    weight_decay: float = 5e-4
    dropout: float = 0.2
    hidden: int = 600


class _RelationNet(nn.Module):
    def __init__(self, plan: RelationPlan) -> None:
        super().__init__()
        self.graphs = GraphNetwork(n_out=1, hidden=plan.hidden, dropout=plan.dropout)
        self.graphs.head = nn.Linear(2 * plan.hidden, 2)

    def forward(self, first: Graphs, second: Graphs) -> Tensor:
        """Log probabilities of (first, second) being better, b pairs -> (b, 2)."""
        pair = torch.cat([self.graphs.embed(first), self.graphs.embed(second)], dim=1)
        return functional.log_softmax(self.graphs.head(pair), dim=1)

    def scores(self, graphs: Graphs) -> Tensor:
        """Half the antisymmetric log odds against a common opponent, n graphs -> (n,)."""
        better = self.graphs.head.weight[0] - self.graphs.head.weight[1]
        first, second = better.chunk(2)
        return 0.5 * self.graphs.embed(graphs) @ (first - second)


class BinaryRelation:
    """An order of NAS-Bench-201 cells by accuracy."""

    def __init__(self, net: _RelationNet) -> None:
        self._net = net

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        accuracy_pct: Floats,
        *,
        plan: RelationPlan | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn from all ordered pairs.

        Shapes: genotypes (n, 6), accuracy_pct (n,) in percent. Raises: ModelError for fewer than
        two architectures or accuracies that are not finite.
        """
        chosen = plan or RelationPlan()
        cells, y = checked_cells(genotypes), np.asarray(accuracy_pct, dtype=np.float64)
        if len(cells) < 2 or y.shape != (len(cells),) or not np.isfinite(y).all():
            raise ModelError("a relation needs at least two architectures with finite accuracies")
        graphs, accuracies = brp_graphs(cells), torch.from_numpy(y.astype(np.float32))
        pairs = torch.from_numpy(np.argwhere(~np.eye(len(cells), dtype=np.bool_)))
        with seeded(seed):
            net = _RelationNet(chosen)

        def loss(rows: Tensor) -> Tensor:
            first, second = pairs[rows].T
            target = torch.softmax(torch.stack([accuracies[first], accuracies[second]], 1), dim=1)
            answer = net(graphs[first], graphs[second])
            return functional.kl_div(answer, target, reduction="sum")

        training = FitPlan(
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            weight_decay=chosen.weight_decay,
            seed=seed,
        )
        fit(net, loss, len(pairs), training)
        return cls(net)

    def scores(self, genotypes: Genotypes) -> Floats:
        """Higher is better; only differences mean something (log odds), (n, 6) -> (n,)."""
        cells = checked_cells(genotypes)
        parts = [np.empty(0)]
        with torch.no_grad():
            for start in range(0, len(cells), _CHUNK):
                graphs = brp_graphs(cells[start : start + _CHUNK])
                parts.append(self._net.scores(graphs).double().numpy())
        return np.concatenate(parts)


def collect(
    query: Query,
    candidates: Genotypes,
    *,
    budget: int = 100,
    n_rounds: int = 5,
    plan: RelationPlan | None = None,
    seed: int = 0,
) -> tuple[BinaryRelation, Ints]:
    """Choose what to train next by what the relation says, round after round.

    The first round is random. Round i takes half of its share from the predicted best and half at
    random from the predicted best 1 / 2^i, none twice.

    Args:
        query: accuracies in percent; called once a round with the architectures chosen.
        candidates: what to choose from, (n, 6).
        budget: accuracies in all.
        n_rounds: rounds of equal size.
        plan: of each round's training.
        seed: of choice and training.

    Returns the relation fitted on all of them and their rows, (budget,), in the order asked.
    Raises: ModelError when the budget does not fit the candidates or the rounds.
    """
    cells = checked_cells(candidates)
    if n_rounds < 1 or budget < 2 * n_rounds or budget > len(cells):
        raise ModelError(f"{budget} accuracies in {n_rounds} rounds from {len(cells)} candidates")
    rng = child_rng(seed, "binary relation")
    sizes = [len(part) for part in np.array_split(np.arange(budget), n_rounds)]
    rows = rng.permutation(len(cells))[: sizes[0]]
    accuracies = query(cells[rows])
    relation = BinaryRelation.fit(cells[rows], accuracies, plan=plan, seed=seed)
    for number, size in enumerate(sizes[1:], start=1):
        order = np.argsort(-relation.scores(cells), kind="stable")
        new = order[~np.isin(order, rows)]
        best, rest = new[: size // 2], new[size // 2 :]
        n_random = size - len(best)
        pool = rest[: max(len(order) // 2**number, n_random)]
        chosen = np.concatenate([best, rng.choice(pool, n_random, replace=False)])
        rows = np.concatenate([rows, chosen])
        accuracies = np.concatenate([accuracies, query(cells[chosen])])
        relation = BinaryRelation.fit(cells[rows], accuracies, plan=plan, seed=seed)
    return relation, rows.astype(np.int64)
