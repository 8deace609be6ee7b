"""`hwnas train hypernetwork`: the MetaHypernetwork of MODNAS as a file, and back.

No table is needed: the shipped accuracy model says how good the networks are, the shipped prior how
fast they are on the devices it knows. A new device is told by what is predicted of the reference
networks from its own measurements, so every profile will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.extras import needs_torch
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, load_model, save_model
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.spaces import Genotypes, get_space
from hwnas_sdk.workflows.hypernetwork_judges import PredictedJudge
from hwnas_sdk.workflows.hypernetworks import EPOCHS, hypernetwork_plan, train_hypernetwork
from hwnas_sdk.workflows.search_devices import checked_objectives, shipped_devices
from hwnas_sdk.workflows.training_files import checkpoint_of

if TYPE_CHECKING:
    from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork
    from hwnas_sdk.search.modnas.loop import ModnasPlan, ModnasResult

KIND: Final = "hypernetwork"
SCHEMA: Final = 1
SHIPPED: Final = "nb201_hypernetwork"
REFERENCES: Final = "ours-10"
TWO: Final = ("error", "latency")
"""Objectives of files that do not name theirs."""


@dataclass(frozen=True)
class TrainedHypernetwork:
    """A hypernetwork and the networks a device is told by.

    Attributes:
        references: genotypes, (k, d).
        objectives: what it trades off, the error first.
    """

    net: MetaHypernetwork
    references: Genotypes
    card: Card
    objectives: tuple[str, ...] = TWO


def train_space_hypernetwork(
    output: Path,
    *,
    space_name: str = "nasbench201",
    objectives: Sequence[str] = TWO,
    scheme: str = "mgd",
    estimator: str = "exact",
    epochs: int = EPOCHS,
    bound: float | None = None,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train from the shipped predictors and write weights and card.

    A checkpoint beside `output` makes a killed training continue; it is removed at the end.
    `objectives` are those of `checked_objectives`; `bound` is the user prior, see `ModnasPlan`.
    Returns ``model`` (path), ``metrics``, ``history`` and ``duration_s``.
    Raises: ConfigError for a space without shipped predictors, or objectives without one.
    """
    if space_name != "nasbench201":
        raise ConfigError(f"no shipped predictors for space {space_name!r}")
    objectives = checked_objectives(objectives)
    space = get_space(space_name)
    prior, accuracy = LatencyPrior.shipped(), AccuracyModel.shipped()
    error_pct = accuracy.predict(space.grid()).mean
    references = reference_genotypes(REFERENCES)
    devices = shipped_devices(space, prior, references, objectives)
    plan = hypernetwork_plan(
        epochs=epochs,
        scheme=scheme,
        estimator=estimator,
        bound=bound,
        evaluate_every=max(1, epochs // 12),
        seed=seed,
    )
    judge = PredictedJudge(space, error_pct, devices, objectives)
    checkpoint = checkpoint_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    result = train_hypernetwork(
        space, error_pct, devices, plan, judge=judge, checkpoint=checkpoint, on_event=on_event
    )
    metrics = {
        "predicted_normalized_hv": result.history[-1]["predicted_normalized_hv"],
        "protocol": f"hypervolume of {judge.n_proposals} proposals relative to the predicted "
        "front, both by the predictors it was trained with; mean over its search devices",
    }
    data = {
        "accuracy": "nb201_accuracy_cifar10",
        "latency": "nb201_latency_prior",
        "devices": list(prior.devices),
        "licence": "that of the tables both learned from, see their cards",
    }
    answer = save_hypernetwork(
        output, result, plan, references, objectives=objectives, data=data, metrics=metrics
    )
    checkpoint.unlink(missing_ok=True)
    return answer


def save_hypernetwork(
    output: Path,
    result: ModnasResult,
    plan: ModnasPlan,
    references: Genotypes,
    *,
    objectives: tuple[str, ...],
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Write weights and card; returns what the command line shows."""
    card = Card(
        name=output.stem,
        kind=KIND,
        space="nasbench201",
        schema=SCHEMA,
        data=data,
        metrics=metrics,
        settings={
            "plan": asdict(plan),
            "sizes": asdict(result.hypernetwork.plan),
            "references": references.tolist(),
            "objectives": list(objectives),
        },
    )
    tensors = {name: value.numpy() for name, value in result.hypernetwork.state_dict().items()}
    card = save_model(output, tensors, card)
    return {
        "model": str(output),
        "objectives": list(objectives),
        "metrics": dict(metrics),
        "history": result.history,
        "weights_sha256": card.weights_sha256,
        "plan": asdict(plan),
        "duration_s": result.duration_s,
    }


def load_hypernetwork(path: Path | None = None) -> TrainedHypernetwork:
    """Read a trained hypernetwork; None: the shipped one.

    Raises: ModelError for another kind, space or schema, or a damaged file; MissingExtraError
        without torch.
    """
    with needs_torch("asking a hypernetwork"):
        import torch

    from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan, MetaHypernetwork

    file = _file_of(path)
    tensors, card = load_model(file, kind=KIND, space="nasbench201", schema=SCHEMA)
    try:
        net = MetaHypernetwork(HypernetworkPlan.from_json(dict(card.settings["sizes"])))
        net.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
        references = np.array(card.settings["references"], dtype=np.int64)
        objectives = _objectives_of(card)
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise ModelError(f"{file.name}: incomplete hypernetwork: {exc}") from exc
    vector = (len(objectives) - 1) * len(references)
    if (net.plan.n_objectives, net.plan.n_features) != (len(objectives), vector):
        raise ModelError(
            f"{file.name}: incomplete hypernetwork: it names the objectives "
            f"{','.join(objectives)}, but was built for {net.plan.n_objectives}"
        )
    net.eval()
    return TrainedHypernetwork(net, references, card, objectives)


def check_hypernetwork(path: Path | None, space_name: str, objectives: Sequence[str]) -> None:
    """Find out what can be known of a file without torch; None: the shipped one.

    Raises: ModelError as `load_hypernetwork`; ConfigError as `refuse_other_objectives`.
    """
    _, card = load_model(_file_of(path), kind=KIND, space=space_name, schema=SCHEMA)
    refuse_other_objectives(card, objectives)


def refuse_other_objectives(card: Card, objectives: Sequence[str]) -> None:
    """Raise ConfigError unless a hypernetwork was trained for these objectives, in any order."""
    known = _objectives_of(card)
    if set(known) != set(objectives):
        raise ConfigError(
            f"{card.name} answers {','.join(known)}, not {','.join(objectives)}",
            code="other_objectives",
            hint=f"--objectives {','.join(known)}, or train one for yours",
        )


def _file_of(path: Path | None) -> Path:
    return path or WEIGHTS_FOLDER / f"{SHIPPED}.safetensors"


def _objectives_of(card: Card) -> tuple[str, ...]:
    return tuple(str(name) for name in card.settings.get("objectives", TWO))
