"""Constrained selection as MetaD2A does it with HELP's latencies: no search, one ordered list.

Source: HELP (Lee et al., NeurIPS 2021), its NAS mode with MetaD2A (Lee et al., ICLR 2021).
"""

from __future__ import annotations

import numpy as np

from hwnas_sdk.search.base import Evaluated, Values
from hwnas_sdk.search.constrained import Bools, BoundedSearcher, Estimate, estimates
from hwnas_sdk.spaces import Genotypes, SearchSpace


class MetaD2aSearcher(BoundedSearcher):
    """Of a list ordered by predicted accuracy, the first that keep each bound.

    Asks the first choice of every bound, then the second ones, and so on. `best_per_bound` counts
    the first `tries` of a bound, as the paper trains three networks per bound; ask for
    ``len(searcher.shortlist)`` once to spend just these.

    Differs from the paper: the list is not a generator's, it is `n_candidates` random
    architectures in the order of the caller's accuracy predictor.

    Args:
        space, cost, bounds, target, seed, n_objectives: see `BoundedSearcher`.
        score: predicted error, or anything that orders like it; lower is better.
        n_candidates: length of the list.
        tries: architectures evaluated per bound.
    """

    name = "metad2a"

    def __init__(
        self,
        space: SearchSpace,
        *,
        score: Estimate,
        cost: Estimate,
        bounds: Values | None = None,
        target: int = 0,
        n_candidates: int = 500,
        tries: int = 3,
        seed: int,
        n_objectives: int = 2,
    ) -> None:
        """Draw and order the list; nothing is asked yet."""
        super().__init__(
            space, cost=cost, bounds=bounds, target=target, seed=seed, n_objectives=n_objectives
        )
        if n_candidates < 1 or tries < 1:
            raise ValueError(
                f"n_candidates and tries must be at least 1, got {n_candidates} and {tries}"
            )
        candidates = self._fresh_random(n_candidates, self._rng)
        order = np.argsort(estimates(score, candidates, "scores"), kind="stable")
        ordered = candidates[order]
        keeps = self._costs(ordered) <= self.bounds[:, None]
        choice = np.where(keeps, keeps.cumsum(axis=1), np.iinfo(np.int64).max)  # 1 = first choice
        # Every candidate at its earliest turn; those that keep no bound have none.
        turn = choice.min(axis=0)
        queue = np.lexsort((choice.argmin(axis=0), turn))
        self._queue = ordered[queue[turn[queue] <= len(candidates)]]
        self.shortlist = self._queue[: int((turn <= tries).sum())]
        self._rows = {tuple(genes): row for row, genes in enumerate(ordered.tolist())}
        self._is_choice = choice <= tries

    def _ask(self, n: int) -> Genotypes:
        return self._fill_up(self._queue[self._may_ask(self._queue)][:n], n)

    def _tell(self, told: Evaluated) -> None:
        del told

    def _competes(self, genotypes: Genotypes, costs: Values) -> Bools:
        del costs
        rows = [self._rows.get(tuple(genes), -1) for genes in genotypes.tolist()]
        # Newcomers asked when the list was used up are nobody's choice.
        padded = np.column_stack([self._is_choice, np.zeros(len(self.bounds), dtype=np.bool_)])
        return padded[:, rows]
