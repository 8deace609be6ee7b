"""The files a search is told to use: whether it can, before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas_sdk.workflows.priors import load_prior
from hwnas_sdk.workflows.rank_guide import check_ranker, ranker_scores
from hwnas_sdk.workflows.train_hypernetwork import (
    check_hypernetwork,
    load_hypernetwork,
    refuse_other_objectives,
)

if TYPE_CHECKING:
    from hwnas_sdk.workflows.search import SearchPlan
    from hwnas_sdk.workflows.train_hypernetwork import TrainedHypernetwork


def check_guide(plan: SearchPlan) -> None:
    """Read card and weights of the plan's files: its prior, its method's; needs no torch.

    Raises: ConfigError for other objectives, space or number of devices; ModelError for another
        kind, space or schema, or a damaged file.
    """
    load_prior(plan.prior)
    if plan.method == "modnas":
        check_hypernetwork(plan.hypernetwork, plan.space, plan.objectives)
    if plan.ranker is not None:
        check_ranker(plan.ranker, plan.get_space(), plan.objectives)


def load_guide(plan: SearchPlan) -> None:
    """Make sure that the search will be able to load the file: by loading it.

    Raises: as `check_guide`; MissingExtraError for a network without torch.
    """
    check_guide(plan)
    if plan.method == "modnas":
        hypernetwork_for(plan)
    if plan.ranker is not None:
        ranker_scores(plan.ranker, plan.get_space(), plan.objectives)


def hypernetwork_for(plan: SearchPlan) -> TrainedHypernetwork:
    """The hypernetwork of a plan with method modnas.

    Raises: ConfigError when it was trained for other objectives; see `load_hypernetwork`.
    """
    trained = load_hypernetwork(plan.hypernetwork)
    refuse_other_objectives(trained.card, plan.objectives)
    return trained
