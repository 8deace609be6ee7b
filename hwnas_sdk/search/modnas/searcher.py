"""A trained hypernetwork behind the ask/tell seam: it is asked, and learns nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.search.base import Evaluated, Searcher
from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork
from hwnas_sdk.search.modnas.proposals import propose_distinct
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.spaces import Genotypes, SearchSpace


class HypernetworkSearcher(Searcher):
    """Asks what a MetaHypernetwork proposes for one device, the likeliest first.

    Args:
        space: the one the hypernetwork was trained on.
        net: trained for as many objectives as it will be told.
        device: its vector, (k,).
        seed: changes nothing; every searcher has one.
    """

    name = "modnas"

    def __init__(
        self,
        space: SearchSpace,
        *,
        net: MetaHypernetwork,
        device: NDArray[np.floating],
        seed: int = 0,
    ) -> None:
        """Start with nothing told.

        Raises: ValueError for a hypernetwork of another space or device vector.
        """
        super().__init__(space, seed=seed, n_objectives=net.plan.n_objectives)
        if net.plan.choices != space.choices:
            raise ValueError(f"the hypernetwork was not trained on {space.name}")
        if np.shape(device) != (net.plan.n_features,):
            raise ValueError(
                f"a device vector has {net.plan.n_features} values, not shape {np.shape(device)}"
            )
        self._net = net
        self._device = device

    def _ask(self, n: int) -> Genotypes:
        def may(genotype: tuple[int, ...]) -> bool:
            return bool(self._may_ask(np.array([genotype], dtype=np.int64))[0])

        preferences = equidistant(self.n_objectives, max(n, self.n_objectives))
        return propose_distinct(self._net, self._device, preferences, may=may)[:n]

    def _tell(self, told: Evaluated) -> None:
        del told
