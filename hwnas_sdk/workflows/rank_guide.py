"""The score that guides a search by rank on a profiled device.

By default it is the expected Pareto rank under what is believed of the device now, so that every
measurement a loop adds changes it. A file of `hwnas train rank` may take its place; what that
learned from the tables stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.extras import needs_torch
from hwnas_sdk.predictors.accuracy import to_target
from hwnas_sdk.predictors.card import Card, load_card, load_model
from hwnas_sdk.predictors.encodings import executed_cells
from hwnas_sdk.predictors.expected_rank import DRAWS, ExpectedRanks
from hwnas_sdk.predictors.population import population_of
from hwnas_sdk.predictors.rank import KIND, SCHEMA, RankModel, RankPredictor
from hwnas_sdk.spaces import Genotypes, SearchSpace
from hwnas_sdk.workflows.beliefs import Beliefs

Floats = NDArray[np.float64]
Scores = Callable[[Genotypes], Floats]
"""Genotypes (n, d) -> scores (n,), higher is better; or -> violations of limits (n,)."""

_NETWORK: Final = "rank_network"
"""Kind of the paper's network, whose module needs torch; a test compares them."""
_LEAST: Final = 1e-9
_SURE: Final = 1e-4
"""Relative sd below which a value is known (of simulators, whose equal networks tie in a draw)."""


def rank_scores_of(
    space: SearchSpace,
    beliefs: Beliefs,
    objectives: Sequence[str],
    *,
    seed: int,
    violation: Scores | None = None,
    draws: int = DRAWS,
) -> Scores:
    """Scores by the expected rank among all live networks of the space (a sample of a large one).

    Folded networks that execute the same cell are one network and counted once.
    With limits, among those that keep them: what exceeds one scores below everything. A doubt that
    all networks share (`Beliefs.scale_log_sd`) changes no rank and is left out.

    Raises: ConfigError for an objective nothing is known about.
    """
    sure = replace(beliefs, scale_log_sd=0.0)

    def executed(genotypes: Genotypes) -> Genotypes:
        return executed_cells(genotypes) if beliefs.folded else genotypes

    ranked = np.unique(executed(population_of(space).genotypes), axis=0)
    if violation is not None:
        keeps = violation(ranked) <= 0.0
        ranked = ranked[keeps] if keeps.any() else ranked
    ranks = ExpectedRanks.of(*_normal(sure, ranked, objectives), seed=seed, draws=draws)
    below = -float(len(ranked))
    score_of = dict(zip(map(tuple, ranked.tolist()), (-ranks.expected).tolist(), strict=True))

    def score(genotypes: Genotypes) -> Floats:
        cells = executed(genotypes)
        scores = np.array([score_of.get(tuple(cell), np.nan) for cell in cells.tolist()])
        left = np.flatnonzero(np.isnan(scores))
        if violation is not None and left.size:
            kept = violation(cells[left]) <= 0.0
            scores[left[~kept]] = below
            left = left[kept]
        if left.size:
            scores[left] = -ranks.of_others(*_normal(sure, cells[left], objectives))
        return scores

    return score


def _normal(
    beliefs: Beliefs, genotypes: Genotypes, objectives: Sequence[str]
) -> tuple[Floats, Floats]:
    """Means and sds on the scales on which errors and costs are predicted, two (n, m).

    -1 / error, and the logarithm of everything else; to first order in the sd. A rank is the same
    on any increasing scale.
    """
    means, sds = beliefs.predict(genotypes, objectives)
    means = np.maximum(means, _LEAST)
    errors = np.array([name == "error" for name in objectives])
    slopes = np.where(errors, means**-2.0, 1.0 / means)
    doubted = np.where(sds > _SURE * means, sds, 0.0)
    return np.where(errors, to_target(means), np.log(means)), doubted * slopes


def ranker_scores(path: Path, space: SearchSpace, objectives: Sequence[str]) -> Scores:
    """Scores by a file of `hwnas train rank`, either kind.

    Raises: as `check_ranker`; MissingExtraError for a network without torch.
    """
    card = check_ranker(path, space, objectives)
    model = _load_ranker(path, card.kind)
    if len(model.platforms) != 1:
        raise _other_devices(path, len(model.platforms))
    (platform,) = model.platforms
    if isinstance(model, RankPredictor):
        guide = model
        return lambda genotypes: -guide.expected_ranks(genotypes, platform)
    return lambda genotypes: model.score(genotypes, platform)


def check_ranker(path: Path, space: SearchSpace, objectives: Sequence[str]) -> Card:
    """Find out what can be known of a file of `hwnas train rank` without torch; its card.

    Raises: ConfigError for a file that was made for another space, for several devices or for other
        objectives; ModelError for one that is no ranker, or damaged.
    """
    card = load_card(path)
    if card.kind == _NETWORK:  # whose schema is for its own module to judge
        load_model(path, kind=_NETWORK, space=card.space, schema=card.schema)
    else:
        load_model(path, kind=KIND, space=card.space, schema=SCHEMA)
    if card.space != space.name:
        raise ConfigError(f"{path.name} ranks networks of {card.space}, not of {space.name}")
    made_for = card.data.get("objectives")
    if made_for is not None and set(made_for) != set(objectives):
        raise ConfigError(
            f"{path.name} ranks by {','.join(made_for)}, not by {','.join(objectives)}",
            hint=f"--objectives {','.join(made_for)}, or train another one",
        )
    platforms = card.settings.get("platforms")
    if isinstance(platforms, Mapping) and len(platforms) != 1:
        raise _other_devices(path, len(platforms))
    return card


def _other_devices(path: Path, n: int) -> ConfigError:
    return ConfigError(
        f"{path.name} ranks for {n} devices, one is needed",
        hint="train one for the device with 'hwnas train rank'",
    )


def _load_ranker(path: Path, kind: str) -> RankModel:
    if kind != _NETWORK:
        return RankPredictor.load(path)
    with needs_torch("the rank network"):
        from hwnas_sdk.predictors.neural import rank_network
    return rank_network.RankNetwork.load(path)
