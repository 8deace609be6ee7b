"""Searches that take one latency bound at a time; many bounds make a front.

`BoundedSearcher` is what `ofa` (evolution under every bound) and `metad2a` (a predicted order, of
which is taken what fits) share. They know the cost of any architecture, its predicted latency,
without evaluating it, never ask for one above the loosest bound, and answer with the best of each
bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.base import Evaluated, Searcher, Values
from hwnas_sdk.spaces import Genotypes, SearchSpace

Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]
Estimate = Callable[[Genotypes], Values]
"""Something known of every architecture without evaluating it, (n, d) -> (n,)."""

N_BOUNDS = 24
_POOL = 2000
"""Random architectures that show the range of costs."""

_FILL_ATTEMPTS = 6
_FILL_DRAWS = 1000
_MARGIN = 1e-6  # radians


def sine_bounds(low: float, high: float, n: int = N_BOUNDS) -> Values:
    """`n` bounds from `low` to `high`, denser near `high`: sin(theta_j) (high - low) + low.

    theta_j is equally spaced in [1e-6, pi/2 - 1e-6]. Shapes: (n,), ascending.
    Raises: ValueError unless low <= high, both finite, and n >= 1.
    Source: the search of HELP's released code.
    """
    if n < 1 or not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"no {n} bounds between {low} and {high}")
    theta = np.linspace(_MARGIN, np.pi / 2 - _MARGIN, n)
    bounds: Values = np.sin(theta) * (high - low) + low
    # The last sine is below 1: without this the costliest architecture would keep no bound.
    bounds[-1] = high
    return bounds


class BoundedSearcher(Searcher):
    """Base of bounded searches: the bounds, what keeps them, and the answer.

    Args:
        space: where to search.
        cost: predicted cost of any architecture.
        bounds: (k,) upper bounds on the cost; None = `sine_bounds` over the costs of random
            architectures.
        target: column of the values that is minimised under each bound.
        seed: with the tells and `cost`, all that determines the asks.
        n_objectives: columns of the values it will be told.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        cost: Estimate,
        bounds: Values | None = None,
        target: int = 0,
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Settle the bounds; nothing is asked yet."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if not 0 <= target < n_objectives:
            raise ValueError(f"target {target} is no column of {n_objectives} objectives")
        self.target = target
        self._cost = cost
        self._rng = child_rng(seed, "search", self.name, space.name)
        pool = space.latin_hypercube(_POOL, self._rng)
        pool = pool[self._may_ask(pool)]
        costs = self._costs(pool)
        order = np.argsort(costs, kind="stable")
        self._pool, self._pool_costs = pool[order], costs[order]
        if bounds is None:
            bounds = sine_bounds(float(costs.min()), float(costs.max()))
        self.bounds = np.sort(np.asarray(bounds, dtype=np.float64))
        if self.bounds.ndim != 1 or len(self.bounds) == 0 or np.isnan(self.bounds).any():
            raise ValueError("bounds are a non-empty list of numbers")

    def best_per_bound(self) -> Evaluated:
        """For each bound the best feasible architecture told that keeps it.

        At most one row per bound, in the order of the bounds: what nothing keeps has none. One
        architecture may be the best of several bounds.
        """
        feasible = self.evaluated.feasible
        costs = self._costs(feasible.genotypes)
        order = np.lexsort((costs, feasible.values[:, self.target]))
        ranked = feasible.take(order)
        competes = self._competes(ranked.genotypes, costs[order])
        if len(ranked) == 0:
            return ranked
        return ranked.take(competes.argmax(axis=1)[competes.any(axis=1)])

    def _competes(self, genotypes: Genotypes, costs: Values) -> Bools:
        """Whether each of n architectures is a choice for each of k bounds, (k, n)."""
        del genotypes
        keeps: Bools = costs <= self.bounds[:, None]
        return keeps

    def _costs(self, genotypes: Genotypes) -> Values:
        return estimates(self._cost, genotypes, "costs")

    def _fill_up(self, found: Genotypes, n: int) -> Genotypes:
        """Add random newcomers within the loosest bound; fewer only when there are no more."""
        for attempt in range(_FILL_ATTEMPTS):
            if len(found) >= n:
                break
            n_draws = min(_FILL_DRAWS * 2**attempt, 8 * self.space.size)
            pool = np.concatenate([found, self.space.uniform(n_draws, self._rng)])
            fresh = pool[self._may_ask(pool)]
            found = fresh[self._costs(fresh) <= self.bounds[-1]]
        return found[:n]


def estimates(estimate: Estimate, genotypes: Genotypes, what: str) -> Values:
    """Checked estimates, (n, d) -> (n,). Raises: DataError unless they are finite."""
    if len(genotypes) == 0:
        return np.empty(0)
    values = np.asarray(estimate(genotypes), dtype=np.float64)
    if values.shape != (len(genotypes),) or not np.isfinite(values).all():
        raise DataError(
            f"the predicted {what} of {len(genotypes)} architectures are not as many finite values",
            code="bad_scores",
        )
    return values
