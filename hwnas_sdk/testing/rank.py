"""What every rank predictor must be able to do.

Usage::

    class TestMyRankModel(RankConformance):
        @pytest.fixture
        def make(self) -> MakeRankModel:
            return lambda space, genotypes, error_pct, costs: MyModel.fit(...)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError, SpaceError
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.rank import RankModel
from hwnas_sdk.spaces import Genotypes, SearchSpace, get_space

Floats = NDArray[np.float64]
MakeRankModel = Callable[[SearchSpace, Genotypes, Floats, Mapping[str, Floats]], RankModel]
"""(space, genotypes (n, d), error_pct (n,), platform -> costs (n,)) -> a trained model."""


class RankConformance:
    """Inherit and override the fixture `make`; `space` may be overridden too."""

    n_labels = 80
    least_kendall = 0.5  # of the scores of labelled architectures with their ranks

    @pytest.fixture
    def make(self) -> MakeRankModel:
        """Trainer of the model under test."""
        raise NotImplementedError("override the fixture `make`")

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Space of the architectures."""
        return get_space("nasbench201")

    def _labels(self, space: SearchSpace) -> tuple[Genotypes, Floats, dict[str, Floats]]:
        sample = space.sample(self.n_labels, seed=3)
        genes = np.array([a.genotype for a in sample], dtype=np.int64)
        error, cost = toy_objectives(space, genes)
        return genes, error, {"board": cost}

    def test_scores_follow_the_ranks(self, make: MakeRankModel, space: SearchSpace) -> None:
        """One finite score per architecture, higher for better ranks, for known platforms only."""
        genes, error, costs = self._labels(space)
        model = make(space, genes, error, costs)
        scores = model.score(genes, "board")
        assert scores.shape == (len(genes),)
        assert np.isfinite(scores).all()
        ranks = pareto.ranks(np.column_stack([error, costs["board"]]))
        tau = kendall(ranks, -scores)
        assert tau is not None
        assert tau > self.least_kendall
        assert model.platforms == ("board",)
        with pytest.raises(ModelError, match="board"):
            model.score(genes, "nobody")
        with pytest.raises(SpaceError):
            model.score(genes[:, :-1], "board")

    def test_a_score_depends_on_its_architecture_alone(
        self, make: MakeRankModel, space: SearchSpace
    ) -> None:
        """Asking for others as well, or in another order, changes nothing; nor does repeating."""
        genes, error, costs = self._labels(space)
        model, again = (make(space, genes, error, costs) for _ in range(2))
        scores = model.score(genes, "board")
        np.testing.assert_allclose(model.score(genes[::-1], "board")[::-1], scores, rtol=1e-4)
        np.testing.assert_allclose(model.score(genes[:3], "board"), scores[:3], rtol=1e-4)
        np.testing.assert_array_equal(again.score(genes, "board"), scores)
        assert model.score(genes[:0], "board").shape == (0,)

    def test_a_platform_can_be_added(self, make: MakeRankModel, space: SearchSpace) -> None:
        """The new platform is ranked by its own costs; the old model and platform stay."""
        genes, error, costs = self._labels(space)
        model = make(space, genes, error, costs)
        scores = model.score(genes, "board")
        more = model.add_platform("other", genes, 2.0 * costs["board"], error_pct=error)
        assert model.platforms == ("board",)
        assert set(more.platforms) == {"board", "other"}
        np.testing.assert_array_equal(more.score(genes, "board"), scores)
        tau = kendall(scores, more.score(genes, "other"))
        assert tau is not None
        assert tau > 0.7  # twice the cost is the same order

    def test_wrong_labels_are_refused(self, make: MakeRankModel, space: SearchSpace) -> None:
        """Shapes that differ and too few labels raise ModelError."""
        genes, error, costs = self._labels(space)
        with pytest.raises(ModelError):
            make(space, genes, error[:-1], costs)
        with pytest.raises(ModelError):
            make(space, genes, error, {"board": costs["board"][:-1]})
        with pytest.raises(ModelError):
            make(space, genes, np.full_like(error, np.nan), costs)


def toy_objectives(space: SearchSpace, genotypes: Genotypes) -> tuple[Floats, Floats]:
    """Error (percent) and cost of a made-up task, smooth in the genes, two (n,)."""
    share = genotypes / (np.array(space.choices) - 1.0)
    weight = 1.0 + np.arange(space.n_decisions) / space.n_decisions
    cost = 1.0 + share**2 @ weight
    error = 50.0 - 30.0 * np.sqrt(share).mean(axis=1) - 4.0 * share[:, 0]
    return error, cost
