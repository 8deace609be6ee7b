"""`hwnas train hypernetwork`: the MetaHypernetwork of MODNAS as a file, and back.

No table is needed: the shipped accuracy model says how good the networks are, the shipped prior how
fast they are on the devices it knows. A new device is told by what is predicted of the reference
networks from its own measurements, so every profile will do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, load_model, save_model
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace, get_space
from hwnas_sdk.workflows.hypernetworks import (
    Floats,
    SearchDevices,
    device_vector,
    hypernetwork_plan,
    known_costs,
    train_hypernetwork,
)

if TYPE_CHECKING:
    from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork

KIND: Final = "hypernetwork"
SCHEMA: Final = 1
SHIPPED: Final = "nb201_hypernetwork"
REFERENCES: Final = "ours-10"


@dataclass(frozen=True)
class TrainedHypernetwork:
    """A hypernetwork and the networks a device is told by.

    Attributes:
        references: genotypes, (k, d).
    """

    net: MetaHypernetwork
    references: Genotypes
    card: Card


def train_space_hypernetwork(
    output: Path,
    *,
    space_name: str = "nasbench201",
    scheme: str = "mgd",
    estimator: str = "exact",
    epochs: int = 60,
    bound: float | None = None,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train from the shipped predictors and write weights and card.

    A checkpoint beside `output` makes a killed training continue; it is removed at the end.
    `bound` is the user prior, see `ModnasPlan`. Returns ``model`` (path), ``metrics``, ``history``
    and ``duration_s``.
    Raises: ConfigError for a space without shipped predictors.
    """
    if space_name != "nasbench201":
        raise ConfigError(f"no shipped predictors for space {space_name!r}")
    space = get_space(space_name)
    everything = space.grid()
    prior, accuracy = LatencyPrior.shipped(), AccuracyModel.shipped()
    costs = known_costs(prior, everything)
    error_pct = accuracy.predict(everything).mean
    references = reference_genotypes(REFERENCES)
    rows = space.numbers(references)
    devices = SearchDevices(
        np.array([device_vector([column[rows]]) for column in costs]), costs[:, None]
    )
    plan = hypernetwork_plan(
        epochs=epochs,
        scheme=scheme,
        estimator=estimator,
        bound=bound,
        evaluate_every=max(1, epochs // 12),
        seed=seed,
    )
    judge = _Judge(space, error_pct, devices)
    checkpoint = output.with_suffix(".checkpoint")
    output.parent.mkdir(parents=True, exist_ok=True)
    result = train_hypernetwork(
        space, error_pct, devices, plan, judge=judge, checkpoint=checkpoint, on_event=on_event
    )
    metrics = {
        "predicted_normalized_hv": result.history[-1]["predicted_normalized_hv"],
        "protocol": "hypervolume of 24 proposals relative to the predicted front, both by the "
        "predictors it was trained with; mean over its search devices",
    }
    card = Card(
        name=output.stem,
        kind=KIND,
        space=space.name,
        schema=SCHEMA,
        data={
            "accuracy": "nb201_accuracy_cifar10",
            "latency": "nb201_latency_prior",
            "devices": list(prior.devices),
            "licence": "that of the tables both learned from, see their cards",
        },
        metrics=metrics,
        settings={
            "plan": asdict(plan),
            "sizes": asdict(result.hypernetwork.plan),
            "references": references.tolist(),
        },
    )
    tensors = {name: value.numpy() for name, value in result.hypernetwork.state_dict().items()}
    card = save_model(output, tensors, card)
    checkpoint.unlink(missing_ok=True)
    return {
        "model": str(output),
        "metrics": metrics,
        "history": result.history,
        "weights_sha256": card.weights_sha256,
        "plan": asdict(plan),
        "duration_s": result.duration_s,
    }


def load_hypernetwork(path: Path | None = None) -> TrainedHypernetwork:
    """Read a trained hypernetwork; None: the shipped one.

    Raises: ModelError for another kind, space or schema, or a damaged file.
    """
    import torch

    from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan, MetaHypernetwork

    file = path or WEIGHTS_FOLDER / f"{SHIPPED}.safetensors"
    tensors, card = load_model(file, kind=KIND, space="nasbench201", schema=SCHEMA)
    try:
        net = MetaHypernetwork(HypernetworkPlan.from_json(dict(card.settings["sizes"])))
        net.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
        references = np.array(card.settings["references"], dtype=np.int64)
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise ModelError(f"{file.name}: incomplete hypernetwork: {exc}") from exc
    net.eval()
    return TrainedHypernetwork(net, references, card)


class _Judge:
    """Hypervolume of the proposals by the predictors themselves, mean over the devices."""

    def __init__(self, space: SearchSpace, error_pct: Floats, devices: SearchDevices) -> None:
        from hwnas_sdk.search.modnas.predicted import scaled_table

        self._space = space
        self._vectors = devices.vectors
        self._live = ~traits_of(space).dead(space.grid())
        # Dead architectures are at (1, 1), the reference point, and add nothing.
        error, *costs = (
            scaled_table(values, self._live, space.choices).flatten().numpy().astype(np.float64)
            for values in (error_pct, *devices.costs[:, 0])
        )
        self._points = [np.column_stack([error, cost]) for cost in costs]
        self._fronts = [pareto.hypervolume(points, np.ones(2)) for points in self._points]

    def __call__(self, net: MetaHypernetwork) -> dict[str, Any]:
        """Hypervolume, and what the proposals are like on average, after an epoch."""
        from hwnas_sdk.search.modnas.proposals import propose_distinct

        shares, means = [], []
        for vector, points, front in zip(self._vectors, self._points, self._fronts, strict=True):
            cells = propose_distinct(net, vector, equidistant(), may=self._may)
            rows = self._space.numbers(cells)
            shares.append(pareto.hypervolume(points[rows], np.ones(2)) / front)
            means.append(points[rows].mean(axis=0))
        error, latency = np.mean(means, axis=0)
        return {
            "predicted_normalized_hv": float(np.mean(shares)),
            "mean_scaled_error": float(error),
            "mean_scaled_latency": float(latency),
        }

    def _may(self, genotype: tuple[int, ...]) -> bool:
        return bool(self._live[self._space.numbers(np.array([genotype]))[0]])
