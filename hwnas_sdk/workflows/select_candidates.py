"""`hwnas select`: which candidates of a front are worth training to the end.

What a search predicted of the error gives way to a score from images: the sum over the training
losses of a short training, or the error with a supernetwork's weights. Who is dominated in (score,
cost) goes. Source: MODNAS, section on the selection of candidates; spec 2.11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwnas_sdk.core.errors import ConfigError, DataError, ModelError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.ids import canonical_json
from hwnas_sdk.core.types import OBJECTIVES, ParetoFront
from hwnas_sdk.pareto import non_dominated_mask
from hwnas_sdk.predictors.card import Card
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.spaces import get_space

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

    Raises: ModelError when a training diverges or `checkpoint` is of another selection.
    """
    from hwnas_sdk.networks.training.sotl import short_training, sotl_score

    space = get_space(front.space)
    identity = {
        "plan": asdict(plan),
        "images": images.fingerprint(),
        "candidates": [candidate.arch for candidate in front.candidates],
    }
    known = _Trained(checkpoint, identity)
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
    return _selection(front, scores, how, trained=trained, inherited=inherited)


def select_by_inheritance(front: ParetoFront, images: ImageSplits, supernet: Supernet) -> Selection:
    """Keep the front of (error with the supernetwork's weights on images held out, costs)."""
    inherited = _inherited(front, supernet, images)
    how = f"by the error on {images.task.name} with the weights of a supernetwork"
    return _selection(front, [100.0 - pct for pct in inherited], how, inherited=inherited)


def check_supernet(card: Card, images: ImageSplits) -> None:
    """Refuse a supernetwork that learned from the images held out here, or from others.

    Raises: DataError.
    """
    if card.data.get("fingerprint") != images.fingerprint():
        raise DataError(
            f"{card.name} was trained on other images than these of {images.task.name}",
            code="other_images",
            hint="name the --task and --data-dir it was trained with",
        )


class _Trained:
    """Results of the candidates that are trained already, in a file."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(canonical_json(identity))
        self.results: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._read(path)

    def under_way(self, number: int) -> Path | None:
        """Checkpoint of one candidate's training."""
        return None if self.path is None else self.path.with_suffix(f".{number + 1}.checkpoint")

    def add(self, arch: str, losses: Sequence[float], accuracy_pct: float) -> None:
        """Keep a result."""
        self.results[arch] = {"losses": list(losses), "accuracy_pct": accuracy_pct}
        if self.path is not None:
            document = {"identity": self.identity, "results": self.results}
            write_text_atomic(self.path, canonical_json(document))

    def drop(self, under_way: Path | None) -> None:
        """Remove the checkpoint of a training whose result is kept."""
        if under_way is not None:
            under_way.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            same = document["identity"] == self.identity
            self.results = dict(document["results"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ModelError(
                f"the checkpoint {path} cannot be read: {type(exc).__name__}",
                code="checkpoint_damaged",
                hint="delete it to start over",
            ) from exc
        if not same:
            raise ModelError(
                f"the checkpoint {path} belongs to another selection",
                code="other_checkpoint",
                hint="delete it to start over, or name another file",
            )


def _inherited(front: ParetoFront, supernet: Supernet, images: ImageSplits) -> list[float]:
    from hwnas_sdk.networks.supernet_response import inherited_accuracy_pct

    genotypes = [candidate.architecture.genotype for candidate in front.candidates]
    pct: list[float] = inherited_accuracy_pct(supernet, genotypes, images, images.valid).tolist()
    return pct


def _selection(
    front: ParetoFront,
    scores: Sequence[float],
    how: str,
    *,
    trained: Sequence[float] | None = None,
    inherited: Sequence[float] | None = None,
) -> Selection:
    keys = [OBJECTIVES[name].key for name in front.objectives if name != "error"]
    try:
        costs = [{key: float(c.values[key]) for key in keys} for c in front.candidates]
    except KeyError as exc:
        raise ConfigError(
            f"a candidate of the front has no {exc.args[0]}",
            hint="write the front again with 'hwnas search -o FRONT.json'",
        ) from None
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
