"""`hwnas select`: which candidates of a front are worth training to the end.

What a search predicted of the error gives way to a score from images: the sum over the training
losses of a short training, or the error with a supernetwork's weights. Who is dominated in (score,
cost) goes. Source: MODNAS, section on the selection of candidates; spec 2.11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.types import ParetoFront
from hwnas_sdk.pareto import non_dominated_mask
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.workflows.front_checks import checked_costs, refuse_other_space
from hwnas_sdk.workflows.short_trainings import Trained

if TYPE_CHECKING:
    from hwnas_sdk.networks.supernet import Supernet
    from hwnas_sdk.networks.training.fit import TrainPlan
    from hwnas_sdk.networks.training.images import ImageSplits

SCORES: Final = ("sotl", "inherited")


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate of a front and how it did; None where it was not asked.

    Attributes:
        score: lower is better.
        kept: whether no other candidate dominates it.
        costs: its predicted objectives but the error, by key.
        trained_accuracy_pct: after the short training, on the images held out.
        inherited_accuracy_pct: with the supernetwork's weights, on the same images.
    """

    arch: str
    score: float
    kept: bool
    costs: Mapping[str, float]
    trained_accuracy_pct: float | None
    inherited_accuracy_pct: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is left of a front.

    Attributes:
        front: the kept candidates.
        scored: all of them, in the order of the old front.
        kendall: tau-b between both accuracies, None unless both are known and differ.
    """

    front: ParetoFront
    scored: tuple[ScoredCandidate, ...]
    kendall: float | None


def select_by_sotl(
    front: ParetoFront,
    images: ImageSplits,
    plan: TrainPlan,
    *,
    supernet: Supernet | None = None,
    torch_device: str = "cpu",
    checkpoint: Path | None = None,
    on_event: EventSink = ignore,
) -> Selection:
    """Train each candidate for a few epochs and keep the front of (SoTL, costs).

    Args:
        front: of live networks.
        images: half to train on, half held out (`search_halves`).
        plan: of every training.
        supernet: if given, asked for the same candidates, to compare.
        torch_device: where torch trains.
        checkpoint: what is trained already, and the training under way beside it. It is left for
            the caller to remove once the selection is written.
        on_event: told after each epoch.

    Raises: DataError, before anything is trained, as `checked_costs`; ModelError when a training
        diverges or `checkpoint` is of another selection.
    """
    from hwnas_sdk.networks.training.sotl import short_training, sotl_score

    space, costs = checked_costs(front)
    if supernet is not None:
        refuse_other_space(space)
    identity = {
        "plan": asdict(plan),
        "images": images.fingerprint(),
        "candidates": [candidate.arch for candidate in front.candidates],
    }
    known = Trained(checkpoint, identity)
    total = len(front.candidates) * plan.epochs
    for number, candidate in enumerate(front.candidates):
        under_way = known.under_way(number)
        if candidate.arch in known.results:
            known.drop(under_way)
            continue

        def told(event: Event, number: int = number) -> None:
            message = f"candidate {number + 1} of {len(front.candidates)}: {event.message}"
            on_event(Event("train candidates", number * plan.epochs + event.done, total, message))

        result = short_training(
            space,
            candidate.architecture,
            images,
            plan,
            torch_device=torch_device,
            checkpoint=under_way,
            on_event=told,
        )
        known.add(candidate.arch, result.losses, result.valid_accuracy_pct[-1])
        known.drop(under_way)
    rows = [known.results[c.arch] for c in front.candidates]
    scores = [sotl_score(row["losses"]) for row in rows]
    inherited = None if supernet is None else _inherited(front, supernet, images)
    how = (
        f"by the sum over the training losses of {plan.epochs} epochs on half of the training "
        f"images of {images.task.name}"
    )
    trained = [float(row["accuracy_pct"]) for row in rows]
    return _selection(front, costs, scores, how, trained=trained, inherited=inherited)


def select_by_inheritance(front: ParetoFront, images: ImageSplits, supernet: Supernet) -> Selection:
    """Keep the front of (error with the supernetwork's weights on images held out, costs).

    Raises: DataError as `checked_costs`, and for a front of another space than the supernetwork's.
    """
    space, costs = checked_costs(front)
    refuse_other_space(space)
    inherited = _inherited(front, supernet, images)
    how = f"by the error on {images.task.name} with the weights of a supernetwork"
    scores = [100.0 - pct for pct in inherited]
    return _selection(front, costs, scores, how, inherited=inherited)


def _inherited(front: ParetoFront, supernet: Supernet, images: ImageSplits) -> list[float]:
    from hwnas_sdk.networks.supernet_response import inherited_accuracy_pct

    genotypes = [candidate.architecture.genotype for candidate in front.candidates]
    pct: list[float] = inherited_accuracy_pct(supernet, genotypes, images, images.valid).tolist()
    return pct


def _selection(
    front: ParetoFront,
    costs: Sequence[Mapping[str, float]],
    scores: Sequence[float],
    how: str,
    *,
    trained: Sequence[float] | None = None,
    inherited: Sequence[float] | None = None,
) -> Selection:
    points = np.column_stack([np.array(scores), np.array([list(row.values()) for row in costs])])
    kept = non_dominated_mask(points)
    scored = tuple(
        ScoredCandidate(
            candidate.arch,
            float(scores[i]),
            bool(kept[i]),
            costs[i],
            None if trained is None else trained[i],
            None if inherited is None else inherited[i],
        )
        for i, candidate in enumerate(front.candidates)
    )
    chosen = replace(
        front,
        candidates=tuple(c for c, keep in zip(front.candidates, kept, strict=True) if keep),
        provenance={
            **front.provenance,
            "selection": f"{int(kept.sum())} of {len(kept)} candidates kept {how}",
        },
    )
    agreement = None
    if trained is not None and inherited is not None:
        agreement = kendall(trained, inherited)
    return Selection(chosen, scored, agreement)
