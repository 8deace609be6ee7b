"""Scores that order architectures by Pareto rank: one number instead of two predictions.

`RankPredictor` learns a posterior of the error (shared) and of the costs of each platform from a
few hundred labels. Joint draws of all objectives of all architectures are sorted into fronts, and
the front numbers are averaged: the estimate of the rank with the least expected squared error. The
score is minus that, averaged with the share of architectures that dominate (`Standing`). Sorting
the two *predicted means* into fronts, as two independent predictors do, takes a lucky prediction
for a front member, and it does not see that a coarse clock puts many architectures on one value;
`rank_independent` does so, to compare. At the very top expected ranks crowd at some costs. So
those that are most often on the first front of a draw come first, as a shortlist: these are spread
over all costs. (On training devices the first fronts of the predicted means covered the true front
less well.)

Differs from the paper (HW-PR-NAS): the score is derived from the posterior instead of being the
output of a network trained on the ranks of small batches. The paper's network is
`predictors.neural.rank_network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.card import Card, Tensors, load_card, load_model, save_model
from hwnas_sdk.predictors.expected_rank import DRAWS
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.population import Population, live_rows, population_of
from hwnas_sdk.predictors.rank_labels import Labels
from hwnas_sdk.predictors.rank_platform import Platform
from hwnas_sdk.predictors.rank_sets import ArchitectureSets
from hwnas_sdk.predictors.standing import Standing, rank_scores
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

Floats = NDArray[np.float64]

KIND: Final = "rank"
SCHEMA: Final = 4


class RankModel(Protocol):
    """What every rank predictor offers; `hwnas_sdk.testing.rank` checks it."""

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms it can score for."""
        ...

    def score(self, genotypes: Genotypes, platform: str) -> Floats:
        """Score of each architecture, higher = better Pareto rank, (n, d) -> (n,)."""
        ...

    def add_platform(
        self,
        name: str,
        genotypes: Genotypes,
        costs: ArrayLike,
        *,
        error_pct: ArrayLike | None = None,
    ) -> Self:
        """The same predictor with one more platform, learned from its costs (and errors)."""
        ...


def encoders_checkpoint(checkpoint: Path) -> Path:
    """Where the pre-training of a network's encoders keeps its own checkpoint."""
    return checkpoint.with_suffix(f".encoders{checkpoint.suffix}")


@dataclass(frozen=True)
class RankPredictor:
    """Expected Pareto ranks under the posterior of all objectives.

    Objectives are the error and the platform's costs (latency, or latency and energy), minimised.
    """

    space: SearchSpace
    error: Labels
    by_platform: Mapping[str, Platform]
    seed: int
    draws: int
    card: Card | None = None

    # --- learning -------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        genotypes: NDArray[np.integer],
        error_pct: ArrayLike,
        costs: Mapping[str, ArrayLike],
        *,
        seed: int = 0,
        draws: int = DRAWS,
    ) -> RankPredictor:
        """Learn from labelled architectures; dead ones are left out.

        Args:
            space: the search space.
            genotypes: (n, d).
            error_pct: (n,) in percent, NaN = not known.
            costs: platform -> (n,) or (n, k) positive costs, NaN = not measured; any units.
            seed: of the draws.
            draws: joint draws the rank is averaged over.

        Raises: ModelError with fewer than 10 usable labels, for shapes that differ, or for costs
            that are not positive.
        """
        genes = checked_genotypes(space, genotypes)
        error = np.asarray(error_pct, dtype=np.float64)
        if error.shape != (len(genes),):
            raise ModelError(f"{error.shape} errors do not label {len(genes)} architectures")
        if draws < 1:
            raise ModelError(f"a rank cannot be averaged over {draws} draws")
        kept = np.isfinite(error) & live_rows(space, genes)
        labels = Labels.of_error(space, genes[kept], error[kept])
        predictor = cls(space, labels, {}, seed, draws)
        for name, values in costs.items():
            predictor = predictor.add_platform(name, genes, values)
        return predictor

    def add_platform(
        self,
        name: str,
        genotypes: NDArray[np.integer],
        costs: ArrayLike,
        *,
        error_pct: ArrayLike | None = None,
    ) -> Self:
        """The same predictor with one more platform (or one learned anew).

        The errors learned before are used as well; `error_pct` adds those of architectures that
        had none, for this platform.

        Shapes: genotypes (n, d); costs (n,) or (n, k), positive, NaN = not measured; error_pct
        (n,). Raises: ModelError as in `fit`.
        """
        genes = checked_genotypes(self.space, genotypes)
        columns = np.asarray(costs, dtype=np.float64)
        columns = columns[:, None] if columns.ndim == 1 else columns
        if columns.ndim != 2 or len(columns) != len(genes):
            raise ModelError(
                f"{name}: costs of shape {np.shape(costs)} for {len(genes)} architectures"
            )
        if (columns <= 0).any() or np.isinf(columns).any():
            raise ModelError(f"{name}: a cost is a positive number, NaN where there is none")
        live = live_rows(self.space, genes)
        platform = Platform.learn(
            self._with_errors(genes[live], error_pct, live), genes[live], columns[live],
            population_of(self.space), name=name, seed=self.seed, draws=self.draws,
        )  # fmt: skip
        return replace(self, by_platform={**self.by_platform, name: platform})

    def _with_errors(
        self, genes: Genotypes, error_pct: ArrayLike | None, live: NDArray[np.bool_]
    ) -> Labels:
        """The known error labels and those of new architectures."""
        if error_pct is None:
            return self.error
        error = np.asarray(error_pct, dtype=np.float64)
        if error.shape != live.shape:
            raise ModelError(f"{error.shape} errors do not label {len(live)} architectures")
        new = np.isfinite(error[live])
        return self.error.with_errors(self.space, genes[new], error[live][new])

    # --- scoring --------------------------------------------------------------------------------

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms it can score for."""
        return tuple(self.by_platform)

    def score(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Minus the standing among the population of the space, on the scale of Pareto ranks.

        Half the expected rank, half the share that dominates (`Standing.order`). The shortlist,
        those most often on the first front of a draw, comes before all others with scores in
        (0, 1], ordered by how often and then by standing.

        The population (every live architecture of a small space) was ranked when the platform was
        learned and is looked up; others are compared with it. Dead architectures score lower than
        every live one.

        Shapes: (n, d) -> (n,).
        Raises: ModelError for a platform that was not learned.
        """
        found, known = self._standing(genotypes, platform), self.platform(platform)
        return rank_scores(found.order(known.standing), found.first, known.shortlist, self.draws)

    def expected_ranks(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Expected Pareto rank among the population, 0 = best; the guide of a search.

        `score` adds what is for naming the best ones. Shapes: (n, d) -> (n,).
        Raises: ModelError for a platform that was not learned.
        """
        return self._standing(genotypes, platform).ranks

    def _standing(self, genotypes: NDArray[np.integer], platform: str) -> Standing:
        genes = checked_genotypes(self.space, genotypes)
        known, population = self.platform(platform), population_of(self.space)
        rows = population.rows(genes)
        found = known.standing.at(rows)
        others = np.flatnonzero(rows < 0)
        if others.size:
            # Dead ones: below whatever a live architecture can get, the rank after the last.
            found.ranks[others] = float(len(population))
            found.dominated[others], found.first[others] = 1.0, 0.0
            alive = others[live_rows(self.space, genes[others])]
            joining = Population(self.space, genes[alive])
            seeded = {"seed": self.seed, "draws": self.draws}
            found.put(alive, known.standing_of(joining, population, **seeded))
        return found

    def ranks_within(self, sets: NDArray[np.integer], platform: str) -> Floats:
        """Expected Pareto rank of each architecture within its own set, 0 = best.

        For a handful that is compared with itself alone. No single score can say this: which of
        two ranks behind the other depends on the rest. The same architectures are drawn alike
        whatever else is asked, and equal ones tie. Dead architectures rank behind all others.

        Shapes: (s, k, d) -> (s, k). Raises: ModelError for a platform that was not learned or for
        anything but sets.
        """
        known, found = self.platform(platform), ArchitectureSets.of(self.space, sets)
        means, sds = known.posterior(found.distinct)
        root = np.linalg.cholesky(known.correlation)
        shape = (self.draws, means.shape[1])
        deviates = np.zeros((len(means), *shape))
        for row, genotype in enumerate(found.distinct.genotypes.tolist()):
            rng = child_rng(self.seed, "rank draws", "sets", *genotype)
            deviates[row] = rng.normal(size=shape) @ root.T
        total = np.zeros(found.member.shape)
        for draw in range(self.draws):
            drawn = known.read(means + sds * deviates[:, draw])
            total += pareto.ranks_of_sets(found.placed(drawn))
        return total / self.draws

    def platform(self, name: str) -> Platform:
        """What was learned for one. Raises: ModelError for a platform that was not learned."""
        if name not in self.by_platform:
            raise ModelError(
                f"the rank predictor was not trained for {name!r}",
                code="other_platform",
                hint=f"it knows {', '.join(self.by_platform) or 'none'}; add_platform adds one",
            )
        return self.by_platform[name]

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: Path, *, data: Mapping[str, Any], metrics: Mapping[str, Any]) -> Card:
        """Write the predictor and its card. The file holds the labels: they are the model."""
        tensors: Tensors = self.error.tensors("error")
        described: dict[str, Any] = {}
        for i, (name, platform) in enumerate(self.by_platform.items()):
            tensors |= platform.tensors(f"platforms.{i}")
            described[name] = {"number": i, "coarse": platform.coarse}
        card = Card(
            name=path.stem,
            kind=KIND,
            space=self.space.name,
            schema=SCHEMA,
            data=data,
            metrics=metrics,
            settings={"platforms": described, "seed": self.seed, "draws": self.draws},
        )
        return save_model(path, tensors, card)

    @classmethod
    def load(cls, path: Path) -> RankPredictor:
        """Read a predictor. Raises: ModelError for another kind, schema or a damaged file."""
        space = load_card(path).space
        tensors, card = load_model(path, kind=KIND, space=space, schema=SCHEMA)
        platforms: dict[str, Platform] = {}
        try:
            stored = card.settings["platforms"].items()
            for name, described in sorted(stored, key=lambda item: int(item[1]["number"])):
                at = f"platforms.{described['number']}"
                platforms[name] = Platform.from_tensors(tensors, at, described["coarse"])
            seed, draws = card.settings["seed"], card.settings["draws"]
            error = Labels.from_tensors(tensors, "error")
        except (KeyError, TypeError, AttributeError) as exc:
            raise ModelError(f"{path.name}: incomplete rank predictor: {exc}") from exc
        return cls(get_space(space), error, platforms, seed, draws, card)
