"""LEMONADE: spend the expensive evaluations where the cheap objectives are thinly covered.

Source: Elsken et al., ICLR 2019, algorithm 1. Differs from the paper: children are mutants without
inherited weights, since scores here come from tables and predictors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.search.base import Evaluated, Values
from hwnas_sdk.search.population import Indices, PopulationSearcher, best_trade_offs, joined
from hwnas_sdk.search.variation import mutate
from hwnas_sdk.spaces import Genotypes, SearchSpace


class LemonadeSearcher(PopulationSearcher):
    """Members are the non-dominated set over all objectives.

    Parents are drawn with a probability of one over the density of their cheap objectives among
    the members; of their mutants so many as are asked for are drawn the same way.

    Args:
        space: where to search.
        cheap: objectives known without evaluating, (n, d) -> (n, c); also asked of architectures
            that are never evaluated.
        children: mutants made for each architecture asked; the paper's 50 for 10.
        seed: with the tells and `cheap`, all that determines the asks.
        n_objectives: columns of the values it will be told, expensive and cheap.
    """

    name = "lemonade"

    def __init__(
        self,
        space: SearchSpace,
        *,
        cheap: Callable[[Genotypes], Values],
        children: int = 5,
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Start without members."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if children < 1:
            raise ValueError(f"at least one child per architecture asked, not {children}")
        self.children = children
        self._cheap = cheap
        self._odds = np.empty(0)
        self._log_sparsity = log_sparsity(np.empty((0, 1)))

    def _ask(self, n: int) -> Genotypes:
        if len(self._members) == 0:
            return super()._ask(n)
        born = self._breed(self.children * n, self._children)
        if len(born) <= n:
            return self._fill_up(born, n)
        return born[self._draw(self._log_sparsity(self._cheap_of(born)), n)]

    def _tell(self, told: Evaluated) -> None:
        super()._tell(told)
        members = self._cheap_of(self._members.genotypes)
        self._log_sparsity = log_sparsity(members)
        weights = np.exp(self._log_sparsity(members))
        self._odds = weights / weights.sum()

    def _children(self, n: int) -> Genotypes:
        parents = self._rng.choice(len(self._odds), size=n, p=self._odds)
        return mutate(self._members.genotypes[parents], self._choices, self._rng)

    def _survivors(self, members: Evaluated, told: Evaluated) -> Evaluated:
        return best_trade_offs(joined(members, told))

    def _draw(self, log_weights: Values, n: int) -> Indices:
        """`n` rows without replacement, each with odds exp(log_weights): Gumbel's top n."""
        keys = log_weights + self._rng.gumbel(size=len(log_weights))
        return np.sort(np.argsort(-keys, kind="stable")[:n])

    def _cheap_of(self, genotypes: Genotypes) -> Values:
        values = np.asarray(self._cheap(genotypes), dtype=np.float64)
        if values.ndim != 2 or len(values) != len(genotypes) or not np.isfinite(values).all():
            raise DataError(
                f"the cheap objectives of {len(genotypes)} architectures are not finite (n, c) "
                "values",
                code="bad_scores",
            )
        return values


def log_sparsity(members: Values) -> Callable[[Values], Values]:
    """Minus the log density of `members` at given points, up to a constant.

    Gaussian kernels with Scott's bandwidth. Columns that are constant do not count; with too few
    members for a density everything is equally sparse.

    Shapes: members (k, c); the result maps (n, c) -> (n,).
    """
    varies = np.ptp(members, axis=0) > 0 if len(members) else np.zeros(members.shape[1], bool)
    if len(members) <= varies.sum() or not varies.any():
        return lambda points: np.zeros(len(points))
    from scipy.stats import gaussian_kde

    # In units of the spread, so that the covariance is as well conditioned as the data allow.
    scale = members[:, varies].std(axis=0)
    try:
        density = gaussian_kde((members[:, varies] / scale).T, bw_method="scott")
    except np.linalg.LinAlgError:  # cheap objectives that are multiples of each other
        column = np.flatnonzero(varies)[:1]
        one = log_sparsity(members[:, column])
        return lambda points: one(points[:, column])
    return lambda points: -np.asarray(density.logpdf((points[:, varies] / scale).T))
