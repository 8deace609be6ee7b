"""Scores that order architectures by Pareto rank: one number instead of two predictions.

`RankPredictor` learns a posterior of the error (shared) and of the costs of each platform from a
few hundred labels and scores an architecture by minus its expected Pareto rank: joint draws of all
objectives of all architectures are sorted into fronts, and the front numbers are averaged. That is
the score with the least expected squared error of the rank. Sorting the two *predicted means* into
fronts, as two independent predictors do, takes a lucky prediction for a front member, and it does
not see that a coarse clock puts many architectures on one value; `independent_ranks` does so, to
compare. At the very top expected ranks crowd at some costs. So those that are most often on the
first front of a draw come first, as a shortlist: these are spread over all costs. (On training
devices the first fronts of the predicted means covered the true front less well.)

Differs from the paper (HW-PR-NAS): the score is derived from the posterior instead of being the
output of a network trained on the ranks of small batches. The paper's network is
`predictors.neural.rank_network`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.accuracy import to_target
from hwnas_sdk.predictors.card import Card, Tensors, load_card, load_model, save_model
from hwnas_sdk.predictors.expected_rank import (
    DRAWS,
    joint_draws,
    least_listed,
    own_deviates,
    rank_scores,
    ranks_among,
)
from hwnas_sdk.predictors.gaussian_process import BlockProcess, Blocks
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.inputs import cost_blocks, error_blocks
from hwnas_sdk.predictors.population import live_rows, population_of
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

Floats = NDArray[np.float64]

KIND: Final = "rank"
SCHEMA: Final = 3
_MIN_LABELS: Final = 10
# With at least this share of repeated values, costs were read off a coarse clock.
_COARSE: Final = 0.5
# On a coarse clock: share of the unrounded draws in the expected rank. Among all architectures a
# level of the clock outranks the next; among a few there are no levels. This orders both.
_FINE_SHARE: Final = 0.25


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


@dataclass(frozen=True)
class Labels:
    """Values of one objective: transformed targets of the architectures that have one."""

    genotypes: Genotypes
    target: Floats
    theta: Floats  # hyper-parameters of the process

    def process(self, blocks: Blocks) -> BlockProcess:
        """The fitted process."""
        return BlockProcess.condition(blocks, self.target, self.theta)


@dataclass(frozen=True)
class Platform:
    """What was learned for one platform.

    Attributes:
        objectives: labels of the error (log scale of its own) and of each cost.
        levels: per cost, the values a coarse clock showed; None for a fine one.
        correlation: of what the objectives' processes leave unexplained, (m, m).
        stretch: mean expected rank over that of unrounded draws, 1 without a coarse clock.
        shortlist: least share of draws on the first front that is on the shortlist.
        ranks: expected ones of the population, (N,); empty until they are known.
        shares: of draws in which each member of the population is on the first front, (N,).
    """

    objectives: tuple[Labels, ...]
    levels: tuple[Floats | None, ...]
    correlation: Floats
    stretch: float
    shortlist: float
    ranks: Floats
    shares: Floats

    @property
    def coarse(self) -> bool:
        """Whether any cost was read off a coarse clock."""
        return any(levels is not None for levels in self.levels)

    def expected(self, rounded: Floats, fine: Floats) -> Floats:
        """Expected rank from those of rounded and of unrounded draws, (n,), (n,) -> (n,)."""
        if not self.coarse:
            return fine
        return (1.0 - _FINE_SHARE) * rounded + _FINE_SHARE * self.stretch * fine


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
        labels = _learned(genes[kept], to_target(error[kept]), error_blocks, space, "error")
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
        learned, levels = [self._with_errors(genes[live], error_pct, live)], []
        for column in columns.T:
            kept = np.isfinite(column) & live
            target = np.log(column[kept])
            learned.append(_learned(genes[kept], target, cost_blocks, self.space, name))
            distinct = np.unique(target)
            levels.append(distinct if len(distinct) <= _COARSE * len(target) else None)
        correlation = self._correlation(learned[1:])
        platform = Platform(tuple(learned), tuple(levels), correlation, 1.0, 0.0, *np.zeros((2, 0)))
        platform = self._ranked(platform)
        return replace(self, by_platform={**self.by_platform, name: platform})

    def _ranked(self, platform: Platform) -> Platform:
        """The platform with what is known once the whole population is ranked."""
        means, sds = self._of_population(platform)
        rounded, fine, first = np.zeros((3, len(means)))
        for points in self._draws(platform, means, sds):
            ranks = pareto.ranks(points)
            fine += ranks / self.draws
            first += ranks == 0
            if platform.coarse:
                rounded += pareto.ranks(_snapped(platform, points)) / self.draws
        shares = first / self.draws
        stretch = float(rounded.mean() / fine.mean()) if platform.coarse and fine.any() else 1.0
        least = least_listed(shares, self.draws)
        platform = replace(platform, stretch=stretch, shortlist=least, shares=shares)
        return replace(platform, ranks=platform.expected(rounded, fine))

    def _with_errors(
        self, genes: Genotypes, error_pct: ArrayLike | None, live: NDArray[np.bool_]
    ) -> Labels:
        """The known error labels and those of new architectures."""
        if error_pct is None:
            return self.error
        error = np.asarray(error_pct, dtype=np.float64)
        if error.shape != live.shape:
            raise ModelError(f"{error.shape} errors do not label {len(live)} architectures")
        known = {tuple(g) for g in self.error.genotypes.tolist()}
        new = np.isfinite(error[live]) & ~np.array([tuple(g) in known for g in genes.tolist()])
        if not new.any():
            return self.error
        return _learned(
            np.concatenate([self.error.genotypes, genes[new]]),
            np.concatenate([self.error.target, to_target(error[live][new])]),
            error_blocks,
            self.space,
            "error",
        )

    def _correlation(self, costs: list[Labels]) -> Floats:
        """Correlation of the costs' leave-one-out errors over architectures that have them all.

        Energy and latency of one architecture err together; the error of its training does not.
        """
        matrix = np.eye(len(costs) + 1)
        if len(costs) == 1:
            return matrix
        residuals: list[dict[tuple[int, ...], float]] = []
        for labels in costs:
            process = labels.process(cost_blocks(self.space, labels.genotypes))
            keys = [tuple(g) for g in labels.genotypes.tolist()]
            residuals.append(dict(zip(keys, process.leave_one_out().tolist(), strict=True)))
        shared = sorted(set.intersection(*(set(r) for r in residuals)))
        if len(shared) >= _MIN_LABELS:
            values = np.array([[r[key] for key in shared] for r in residuals])
            # Held below one, so that the matrix has a Cholesky factor.
            matrix[1:, 1:] = 0.999 * np.corrcoef(values) + 0.001 * np.eye(len(costs))
        return matrix

    # --- scoring --------------------------------------------------------------------------------

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms it can score for."""
        return tuple(self.by_platform)

    def score(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Minus the expected Pareto rank among the population of the space.

        The shortlist, those most often on the first front of a draw, comes before all others with
        scores in (0, 1], ordered by how often and then by expected rank.

        The population (every live architecture of a small space) was ranked when the platform was
        learned and is looked up; others are compared with it. Dead architectures score lower than
        every live one.

        Shapes: (n, d) -> (n,).
        Raises: ModelError for a platform that was not learned.
        """
        ranks, shares = self._ranks(genotypes, platform)
        return rank_scores(ranks, shares, self._platform(platform).shortlist, self.draws)

    def expected_ranks(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Expected Pareto rank among the population, 0 = best; the guide of a search.

        As `score` without its shortlist, which is for naming the best ones. Shapes: (n, d) -> (n,).
        Raises: ModelError for a platform that was not learned.
        """
        return self._ranks(genotypes, platform)[0]

    def _ranks(self, genotypes: NDArray[np.integer], platform: str) -> tuple[Floats, Floats]:
        """Expected ranks, and shares of draws on the first front, two (n,)."""
        genes = checked_genotypes(self.space, genotypes)
        known = self._platform(platform)
        rows = population_of(self.space).rows(genes)
        ranks, shares = known.ranks[rows], known.shares[rows]
        others = np.flatnonzero(rows < 0)
        if others.size:
            live = live_rows(self.space, genes[others])
            # Dead ones: below whatever a live architecture can get, the rank after the last.
            ranks[others], shares[others] = float(len(known.ranks)), 0.0
            joined = self._ranks_of_others(genes[others[live]], known)
            ranks[others[live]], shares[others[live]] = joined
        return ranks, shares

    def independent_ranks(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Fronts of the predicted means of `genotypes` among themselves, 0 = best, (n, d) -> (n,).

        What two independent predictors with the same inputs and tuning would say.
        """
        genes = checked_genotypes(self.space, genotypes)
        means, _ = self._posterior(
            self._platform(platform),
            error_blocks(self.space, genes),
            cost_blocks(self.space, genes),
        )
        ranks: Floats = pareto.ranks(means).astype(np.float64)
        return ranks

    def _of_population(self, platform: Platform) -> tuple[Floats, Floats]:
        """Means and sds of the population's objectives, (N, m) each, costs not rounded."""
        population = population_of(self.space)
        return self._posterior(platform, population.error_blocks, population.cost_blocks)

    def _draws(self, platform: Platform, means: Floats, sds: Floats) -> Iterator[Floats]:
        """Joint draws of the population's objectives, (N, m) each, costs not rounded."""
        # One seed for every platform: their draws are paired.
        return joint_draws(means, sds, platform.correlation, seed=self.seed, draws=self.draws)

    def _ranks_of_others(self, genes: Genotypes, platform: Platform) -> tuple[Floats, Floats]:
        """Ranks and shares that architectures would have if they joined the population."""
        means, sds = self._posterior(
            platform, error_blocks(self.space, genes), cost_blocks(self.space, genes)
        )
        population = self._of_population(platform)
        root = np.linalg.cholesky(platform.correlation)
        own = own_deviates(means.shape[1], seed=self.seed, draws=self.draws)
        rounded, fine, first = np.zeros((3, len(genes)))
        for points, z in zip(self._draws(platform, *population), own, strict=True):
            mine = means + sds * (root @ z)
            ranks = ranks_among(mine, points)
            fine += ranks / self.draws
            first += ranks == 0
            if platform.coarse:
                snapped = _snapped(platform, mine), _snapped(platform, points)
                rounded += ranks_among(*snapped) / self.draws
        return platform.expected(rounded, fine), first / self.draws

    def _posterior(
        self, platform: Platform, errors: Blocks, costs: Blocks
    ) -> tuple[Floats, Floats]:
        """Mean and sd of all transformed objectives, error first, two (n, m)."""
        predicted = []
        for i, labels in enumerate(platform.objectives):
            inputs, wanted = (cost_blocks, costs) if i else (error_blocks, errors)
            process = labels.process(inputs(self.space, labels.genotypes))
            predicted.append(process.predict(wanted))
        means, sds = zip(*predicted, strict=True)
        return np.column_stack(means), np.column_stack(sds)

    def _platform(self, name: str) -> Platform:
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
        tensors: Tensors = _tensors("error", self.error)
        described: dict[str, Any] = {}
        for i, (name, platform) in enumerate(self.by_platform.items()):
            at = f"platforms.{i}"
            for j, labels in enumerate(platform.objectives):
                tensors |= _tensors(f"{at}.{j}", labels)
            for j, levels in enumerate(platform.levels):
                if levels is not None:
                    tensors[f"{at}.levels.{j}"] = levels
            tensors[f"{at}.correlation"] = platform.correlation
            tensors[f"{at}.top"] = np.array([platform.stretch, platform.shortlist])
            tensors[f"{at}.ranks"] = platform.ranks
            tensors[f"{at}.shares"] = platform.shares
            coarse = [levels is not None for levels in platform.levels]
            described[name] = {"number": i, "coarse": coarse}
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
                at, coarse = f"platforms.{described['number']}", described["coarse"]
                platforms[name] = Platform(
                    tuple(_labels(tensors, f"{at}.{j}") for j in range(len(coarse) + 1)),
                    tuple(tensors[f"{at}.levels.{j}"] if c else None for j, c in enumerate(coarse)),
                    tensors[f"{at}.correlation"],
                    float(tensors[f"{at}.top"][0]),
                    float(tensors[f"{at}.top"][1]),
                    tensors[f"{at}.ranks"],
                    tensors[f"{at}.shares"],
                )
            seed, draws = card.settings["seed"], card.settings["draws"]
            error = _labels(tensors, "error")
        except (KeyError, TypeError, AttributeError) as exc:
            raise ModelError(f"{path.name}: incomplete rank predictor: {exc}") from exc
        return cls(get_space(space), error, platforms, seed, draws, card)


def _snapped(platform: Platform, points: Floats) -> Floats:
    """Round costs read off a coarse clock to the nearest value it showed; a new array."""
    points = points.copy()
    for column, levels in enumerate(platform.levels, start=1):
        if levels is not None:
            middle = (levels[1:] + levels[:-1]) / 2.0
            points[:, column] = levels[np.searchsorted(middle, points[:, column])]
    return points


def _learned(genes: Genotypes, target: Floats, inputs: Any, space: SearchSpace, of: str) -> Labels:
    if len(target) < _MIN_LABELS:
        raise ModelError(
            f"{of}: a rank predictor needs {_MIN_LABELS} labelled live architectures, "
            f"got {len(target)}",
            hint="measure more architectures",
        )
    return Labels(genes, target, BlockProcess.fit(inputs(space, genes), target).theta)


def _tensors(prefix: str, labels: Labels) -> Tensors:
    return {
        f"{prefix}.genotypes": labels.genotypes,
        f"{prefix}.target": labels.target,
        f"{prefix}.theta": labels.theta,
    }


def _labels(tensors: Tensors, prefix: str) -> Labels:
    return Labels(*(tensors[f"{prefix}.{part}"] for part in ("genotypes", "target", "theta")))
