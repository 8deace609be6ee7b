"""A MetaHypernetwork for a whole space from predictors: trained once, asked in no time.

The task loss is the error an accuracy model predicts, the hardware objectives are what a transfer
model predicts for the search devices from the same references every device is told by. Everything
is scaled over the live architectures; see `search.modnas.predicted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace

if TYPE_CHECKING:
    from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork
    from hwnas_sdk.search.modnas.loop import BestResponse, ModnasPlan, ModnasResult

Floats = NDArray[np.float64]
Judge = Callable[["MetaHypernetwork"], dict[str, Any]]
"""Hypernetwork after an epoch -> plain numbers for the history."""

EPOCHS: Final = 60
PROPOSALS_PER_CANDIDATE: Final = 4
"""Preferences looked up for each candidate that is chosen: answers may exceed a limit, repeat a
function, or promise less under a device's own predictor. Not tuned."""
_LEAST_SPREAD: Final = 1e-3  # of a device's references, relative to the largest


@dataclass(frozen=True)
class SearchDevices:
    """What a hypernetwork is trained on.

    Attributes:
        vectors: device vectors, (T, k), see `device_vector`.
        costs: predicted hardware objectives of the whole space, (T, m - 1, size).
    """

    vectors: Floats
    costs: Floats

    def __post_init__(self) -> None:
        """Refuse parts that do not fit."""
        if self.costs.ndim != 3 or len(self.costs) != len(self.vectors):
            raise ModelError(
                f"{len(self.vectors)} device vectors do not fit costs of shape {self.costs.shape}"
            )


def device_vector(references: Sequence[Floats]) -> Floats:
    """A device by its reference values of each hardware metric, scaled to [0, 1] within each.

    Shapes: m - 1 arrays (k,) -> ((m - 1) k,). Source: MODNAS, section 3; spec 2.2.
    """
    parts = []
    for values in references:
        least, most = float(values.min()), float(values.max())
        parts.append((values - least) / max(most - least, _LEAST_SPREAD * abs(most)))
    return np.concatenate(parts)


def hypernetwork_plan(**changes: Any) -> ModnasPlan:
    """How a hypernetwork is trained on predictions: quicker than the paper, which has images."""
    from hwnas_sdk.search.modnas.loop import ModnasPlan

    values = {"epochs": EPOCHS, "steps": 50, "preferences": 8, "estimator": "exact",
              "learning_rate": 0.02, "weight_decay": 0.0, "evaluate_every": EPOCHS}  # fmt: skip
    return ModnasPlan(**{**values, **changes})


def train_hypernetwork(
    space: SearchSpace,
    error_pct: Floats,
    devices: SearchDevices,
    plan: ModnasPlan,
    *,
    form: str = "knots",
    judge: Judge | None = None,
    checkpoint: Path | None = None,
    on_event: EventSink = ignore,
) -> ModnasResult:
    """Algorithm 1 of MODNAS on predictions of a small space.

    Args:
        space: at most `search.modnas.objectives.LARGEST_TABLE` architectures.
        error_pct: predicted errors of the whole space, (size,), in the order of
            ``space.grid()``.
        devices: the search devices.
        plan: how to search.
        form: of the preference, see `HypernetworkPlan`.
        judge: see `search_all`.
        checkpoint: see `search_all`.
        on_event: told after each epoch.

    Raises: ModelError for predictions that are not finite, a space that is too large, or a
        checkpoint of another search.
    """
    from hwnas_sdk.search.modnas.predicted import PredictedResponse, scaled_table

    live = ~traits_of(space).dead(space.grid())
    return search_for_devices(
        space,
        PredictedResponse(scaled_table(error_pct, live, space.choices)),
        devices,
        plan,
        form=form,
        judge=judge,
        checkpoint=checkpoint,
        on_event=on_event,
    )


def search_for_devices(
    space: SearchSpace,
    response: BestResponse,
    devices: SearchDevices,
    plan: ModnasPlan,
    *,
    form: str = "knots",
    of: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 20.0,
    on_event: EventSink = ignore,
) -> ModnasResult:
    """Algorithm 1 of MODNAS with hardware objectives that are predicted for the whole space.

    Args:
        space: see `train_hypernetwork`.
        response: the side of the task loss.
        devices: the search devices.
        plan: how to search.
        form: of the preference, see `HypernetworkPlan`.
        of: see `search_all`.
        judge: see `search_all`.
        checkpoint: see `search_all`.
        checkpoint_every_s: see `search_all`.
        on_event: told after each epoch.

    Raises: as `train_hypernetwork`.
    """
    import torch

    from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan
    from hwnas_sdk.search.modnas.loop import search_all
    from hwnas_sdk.search.modnas.predicted import PredictedHardware, scaled_table

    sizes = space.choices
    live = ~traits_of(space).dead(space.grid())
    costs = torch.stack(
        [
            torch.stack([scaled_table(metric, live, sizes) for metric in device])
            for device in devices.costs
        ]
    )
    return search_all(
        HypernetworkPlan(
            choices=sizes,
            n_features=devices.vectors.shape[1],
            n_objectives=1 + devices.costs.shape[1],
            form=form,  # type: ignore[arg-type]  # checked there
        ),
        response,
        PredictedHardware(costs),
        torch.from_numpy(devices.vectors.astype(np.float32)),
        plan,
        of=of,
        judge=judge,
        checkpoint=checkpoint,
        checkpoint_every_s=checkpoint_every_s,
        on_event=on_event,
    )


def known_costs(prior: LatencyPrior, genotypes: Genotypes) -> Floats:
    """Latencies of the prior's own devices without their noise, relative, (n_devices, n)."""
    weights = prior.mean + np.sqrt(len(prior.deviations)) * prior.deviations
    costs: Floats = weights @ prior.standardise(structural_features(genotypes)).T
    return costs
