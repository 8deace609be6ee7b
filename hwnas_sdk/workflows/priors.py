"""The latency prior a command starts from: the shipped one, or a file of `hwnas train latency`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.ids import content_id, sha256_bytes
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import load_card

METRIC: Final = "latency"
"""What a prior is of, by its card; the prior of energies is that of latencies."""


def load_prior(path: Path | None) -> LatencyPrior:
    """Prior of a file; None for the shipped one.

    Raises: ModelError for a file of another kind, space, schema or metric, without its card, or
        damaged.
    """
    if path is None:
        return LatencyPrior.shipped()
    prior = LatencyPrior.load(path)
    learned = load_card(path).data.get("metric", METRIC)
    if learned != METRIC:
        raise ModelError(
            f"{path.name} was learned from {learned}, a prior of {METRIC} is needed",
            code="other_metric",
            hint="make one with `hwnas train latency`",
        )
    return prior


def prior_plan(prior: LatencyPrior | None) -> dict[str, str]:
    """What a run's plan says of its prior, so that it never continues with another one.

    Nothing for None, the shipped one, which belongs to the version.
    """
    if prior is None:
        return {}
    tensors = (prior.center, prior.scale, prior.mean, prior.deviations, prior.log_noises)
    named = {
        "tensors": [sha256_bytes(tensor.tobytes()) for tensor in tensors],
        "log_scale": [prior.log_scale_mean, prior.log_scale_sd],
        "devices": prior.devices,
        "settings": asdict(prior.settings),
    }
    return {"prior_id": content_id(named)}
