"""Once-for-all's evolution under latency bounds: many bounds, one front.

Source: Once-for-all (Cai et al., ICLR 2020), section 3.3 and the released code.
"""

from __future__ import annotations

import numpy as np

from hwnas_sdk.search.base import Evaluated, Values
from hwnas_sdk.search.constrained import BoundedSearcher, Estimate, Indices
from hwnas_sdk.search.variation import resample, uniform_crossover
from hwnas_sdk.spaces import Genotypes, SearchSpace

_BROOD = 16
"""Children drawn for each one that is asked."""

_MORE_TRIES = 4


class OfaSearcher(BoundedSearcher):
    """Once-for-all's evolution, under all bounds side by side.

    Parents under a bound are the best of everything told that keeps it, which is who its own
    elitist truncation would have kept; half of the children are mutants, half come from uniform
    crossover, and what exceeds the bound is drawn again. A bound with nothing new left gives its
    turn to the next looser one.

    Differs from the paper: the runs take turns and share what was evaluated, so that no
    architecture is evaluated twice. The paper's 100 x 500 per bound are for a space of 10^19;
    give fewer generations to a small one.

    Args:
        space, cost, bounds, target, seed, n_objectives: see `BoundedSearcher`.
        population: of each bound; `parents_share` of it are parents.
        parents_share: the paper's top 25 %.
        mutation_share: of the children; the others come from crossover.
        gene_probability: that a mutant's decision is drawn anew.
    """

    name = "ofa"

    def __init__(
        self,
        space: SearchSpace,
        *,
        cost: Estimate,
        bounds: Values | None = None,
        target: int = 0,
        population: int = 100,
        parents_share: float = 0.25,
        mutation_share: float = 0.5,
        gene_probability: float = 0.1,
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Settle the bounds; nothing is asked yet."""
        super().__init__(
            space, cost=cost, bounds=bounds, target=target, seed=seed, n_objectives=n_objectives
        )
        shares = {
            "parents_share": parents_share,
            "mutation_share": mutation_share,
            "gene_probability": gene_probability,
        }
        wrong = [name for name, value in shares.items() if not 0.0 < value <= 1.0]
        if population < 1 or wrong:
            raise ValueError(
                f"{wrong[0]} must be above 0 and at most 1"
                if wrong
                else f"a population needs at least 1 member, got {population}"
            )
        self.n_parents = max(1, round(parents_share * population))
        self._mutation_share = mutation_share
        self._gene_probability = gene_probability
        self._choices = np.array(space.choices, dtype=np.int64)
        self._turn = 0

    def _ask(self, n: int) -> Genotypes:
        parents = self._parents()
        turns = (self._turn + np.arange(n)) % len(self.bounds)
        self._turn = (self._turn + n) % len(self.bounds)
        found = np.empty((0, self.space.n_decisions), dtype=np.int64)
        for _ in range(len(self.bounds) + _MORE_TRIES):
            if len(turns) == 0:
                return found
            brood = np.repeat(turns, _BROOD)
            children = self._brood(brood, parents)
            keeps = self._costs(children) <= self.bounds[brood]
            keeps &= self._may_ask(np.concatenate([found, children]))[len(found) :]
            litter = keeps.reshape(len(turns), _BROOD)
            first = np.arange(len(turns)) * _BROOD + litter.argmax(axis=1)
            served = litter.any(axis=1)
            found = np.concatenate([found, children[first[served]]])
            turns = np.minimum(turns[~served] + 1, len(self.bounds) - 1)
        return self._fill_up(found, n)

    def _tell(self, told: Evaluated) -> None:
        del told

    def _parents(self) -> list[Genotypes]:
        """Parents under each bound, best first; without any told, random ones that keep it."""
        told = self.evaluated
        ranked = told.take(np.lexsort((told.values[:, self.target], told.violation)))
        keeps = self._costs(ranked.genotypes) <= self.bounds[:, None]
        n_pool = np.searchsorted(self._pool_costs, self.bounds, side="right")
        return [
            ranked.genotypes[keeps[j]][: self.n_parents] if keeps[j].any() else self._pool[:n]
            for j, n in enumerate(n_pool)
        ]

    def _brood(self, bounds: Indices, parents: list[Genotypes]) -> Genotypes:
        """One child for each entry of `bounds`, rows of `self.bounds`, (n,) -> (n, d)."""
        sizes = np.array([len(rows) for rows in parents])
        starts = np.cumsum(sizes) - sizes
        everyone = np.concatenate([*parents, self._pool[:1]])
        picks = (self._rng.random((2, len(bounds))) * sizes[bounds]).astype(np.int64)
        first: Genotypes = everyone[starts[bounds] + picks[0]]
        second = everyone[starts[bounds] + picks[1]]
        if len(self.evaluated) == 0:
            return first
        mutants = resample(first, self._choices, self._gene_probability, self._rng)
        crossed = uniform_crossover(first, second, self._rng)[0]
        is_mutant = self._rng.random(len(bounds)) < self._mutation_share
        children: Genotypes = np.where(is_mutant[:, None], mutants, crossed)
        return children
