"""A hypernetwork behind ask/tell."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan, MetaHypernetwork  # noqa: E402
from hwnas_sdk.search.modnas.searcher import HypernetworkSearcher  # noqa: E402
from hwnas_sdk.spaces import get_space  # noqa: E402
from hwnas_sdk.testing.searcher import SearcherConformance  # noqa: E402


def network(space, n_features=3):
    plan = HypernetworkPlan(choices=space.choices, n_features=n_features, bank=4)
    return MetaHypernetwork(plan, generator=torch.Generator().manual_seed(0))


class TestModnas(SearcherConformance):
    @pytest.fixture
    def make(self):
        return lambda space, seed: HypernetworkSearcher(
            space, net=network(space), device=np.full(3, 0.1 * seed), seed=seed
        )


def test_what_does_not_fit_is_refused():
    space = get_space("nasbench201")
    plan = HypernetworkPlan(choices=(2, 2), n_features=3)
    with pytest.raises(ValueError, match="not trained on"):
        HypernetworkSearcher(space, net=MetaHypernetwork(plan), device=np.zeros(3))
    with pytest.raises(ValueError, match="3 values"):
        HypernetworkSearcher(space, net=network(space), device=np.zeros(4))
