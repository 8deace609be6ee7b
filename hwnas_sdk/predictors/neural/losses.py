"""Losses that teach one score per architecture the order of a batch's Pareto ranks.

All take raw scores s (b,) and ranks (b,), 0 = best front; a higher score is a better rank, and
members of one front are tied.

- `listwise` (default): Plackett-Luce likelihood with Breslow's treatment of ties,
  L = 1/b sum_k [ |F_k| log sum_{j in R_k} exp s_j - sum_{i in F_k} s_i ],  R_k = fronts k, k+1, ...
- `efron`: the same with Efron's approximation of the average over all orders within a front.
- `pairwise`: mean of log(1 + exp(s_b - s_a)) over pairs in which a has the better rank.
- `paper_eq8`: as printed in HW-PR-NAS, which applies Plackett-Luce to scores that went through a
  softmax already; it barely tells architectures beyond the second apart. For comparison only. Ties
  are broken by position in the batch, as the paper says nothing.

Sources: HW-PR-NAS eq. 7, 8; Xia et al. 2008 (ListMLE); Breslow 1974; Efron 1977.
Differs from the paper: see `listwise` against `paper_eq8`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

RankLoss = Callable[[Tensor, Tensor], Tensor]


def batch_ranks(objectives: Tensor) -> Tensor:
    """Pareto rank of each row within the batch, 0 = best; objectives (b, m) are minimised.

    Equal rows share a rank. Computed outside of autograd.
    """
    from hwnas_sdk import pareto

    ranks = pareto.ranks(objectives.detach().cpu().double().numpy())
    return torch.from_numpy(ranks).to(objectives.device)


def _fronts(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted scores, front number of each (0..K-1), and per front its size and log sum over R_k."""
    order = torch.argsort(ranks, stable=True)
    sorted_scores = scores[order]
    _, front, sizes = torch.unique_consecutive(
        ranks[order], return_inverse=True, return_counts=True
    )
    # log sum over everything from a position on; R_k begins where front k begins.
    from_here = torch.logcumsumexp(sorted_scores.flip(0), dim=0).flip(0)
    starts = torch.cumsum(sizes, dim=0) - sizes
    return sorted_scores, front, sizes, from_here[starts]


def listwise(scores: Tensor, ranks: Tensor) -> Tensor:
    """Tie-aware Plackett-Luce, (b,), (b,) -> scalar."""
    _, _, sizes, log_rest = _fronts(scores, ranks)
    total: Tensor = (sizes * log_rest).sum() - scores.sum()
    return total / len(scores)


def efron(scores: Tensor, ranks: Tensor) -> Tensor:
    """Plackett-Luce with Efron's ties, (b,), (b,) -> scalar."""
    ordered, front, sizes, log_rest = _fronts(scores, ranks)
    n_fronts = len(sizes)
    top = ordered.max().detach()
    own = torch.zeros(n_fronts, dtype=scores.dtype, device=scores.device)
    own = own.index_add(0, front, torch.exp(ordered - top))
    rest = torch.exp(log_rest - top)
    starts = torch.cumsum(sizes, dim=0) - sizes
    position = torch.arange(len(scores), device=scores.device) - starts[front]  # r = 0..m-1
    share = position / sizes[front]
    # r < m, so what is left is at least 1/m of the front itself; the floor is for underflow only.
    left = (rest[front] - share * own[front]).clamp_min(torch.finfo(scores.dtype).tiny)
    total: Tensor = (torch.log(left) + top).sum() - scores.sum()
    return total / len(scores)


def pairwise(scores: Tensor, ranks: Tensor) -> Tensor:
    """Logistic loss over pairs of different rank, (b,), (b,) -> scalar; 0 without such a pair."""
    better = ranks[:, None] < ranks[None, :]
    margin = scores[:, None] - scores[None, :]
    losses = functional.softplus(-margin)[better]
    total: Tensor = losses.sum() / max(int(better.sum()), 1)
    return total


def paper_eq8(scores: Tensor, ranks: Tensor) -> Tensor:
    """The printed loss, (b,), (b,) -> scalar; not divided by the batch size."""
    out = torch.softmax(scores, dim=0)[torch.argsort(ranks, stable=True)]
    from_here = torch.logcumsumexp(out.flip(0), dim=0).flip(0)
    total: Tensor = (from_here - out).sum()
    return total


LOSSES: Final[Mapping[str, RankLoss]] = {
    "listwise": listwise,
    "efron": efron,
    "pairwise": pairwise,
    "paper_eq8": paper_eq8,
}
