"""How well the sum of layers measured one by one predicts whole networks, on a device at hand.

Public tables have whole networks only, so a look-up table can be judged on a device of one's own
alone. Random networks and all their different layers are measured. Some of the networks correct
the sum (a straight line) and teach the models beside it; all are judged on the others. Raw sums see
no whole network at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, MeasurementError
from hwnas_sdk.core.settings import MeasureSettings, settings_preset
from hwnas_sdk.core.types import Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.predictors.baselines import AdditiveCosts, FlopsModel, ParamsModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.bayes_transfer import BayesModel
from hwnas_sdk.predictors.metrics import agreement
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.report.predictor_plots import Predicted, draw_predictions
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.workflows.beliefs import Label
from hwnas_sdk.workflows.layers import LayersResult, NetworkSum, measure_layers, stored_items

if TYPE_CHECKING:
    from hwnas_sdk.workflows.lab import Lab

Floats = NDArray[np.float64]

FEWEST_JUDGED: Final = 3
"""Ranks of fewer networks say nothing."""


def check_judged(n: int, samples: int) -> None:
    """Raise ConfigError when `n` networks, `samples` of them to learn from, leave too few."""
    if n < samples + FEWEST_JUDGED:
        raise ConfigError(
            f"{n} networks, {samples} of them to learn from: too few are left to judge",
            hint=f"--n {samples + FEWEST_JUDGED} or more",
        )


def run_bench_layers(
    lab: Lab,
    *,
    on: DeviceSession,
    n: int = 24,
    samples: int = 10,
    settings: MeasureSettings | None = None,
    prior: LatencyPrior | None = None,
    fresh: bool = False,
    seed: int = 0,
    plots: Path | None = None,
) -> dict[str, Any]:
    """Measure `n` random networks (unfolded) and their layers; compare sums and models with them.

    Args:
        lab: store and cache.
        on: a board, or a simulator.
        n: networks, `samples` of them to learn from.
        samples: whole networks that correct the sum and teach the other models.
        settings: how to measure; None = quick.
        prior: of the Bayesian model; None = the shipped one.
        fresh: measure all again, whatever the store has in these settings.
        seed: draws the networks.
        plots: folder for a picture, None for none.

    Interrupted, the same call continues. Returns per model the figures of `Agreement` on the
    networks that taught nothing, and every network with its sum; milliseconds and board seconds.

    Raises: ConfigError for too few networks to judge, or a device that knows whole networks only;
        MeasurementError when too few networks could be measured with all their layers; DeviceError.
    """
    check_judged(n, samples)
    space = get_space("nasbench201")
    settings = settings or settings_preset("quick")
    known = {} if fresh else stored_items(lab.store, on.spec.id, settings)
    result = measure_layers(
        lab, space.sample(n, seed=seed), on=on, settings=settings, seed=seed, known=known
    )
    usable = [
        network
        for network in result.networks
        if network.sum_ms is not None and network.measurement.status == "valid"
    ]
    if len(usable) < samples + FEWEST_JUDGED:
        raise MeasurementError(
            f"{on.spec.name}: only {len(usable)} of {n} networks were measured with all their "
            f"layers, {samples + FEWEST_JUDGED} are needed",
            device_id=on.spec.id,
            code="invalid_measurements",
            hint="see `hwnas doctor`; what is valid is kept, the command without --fresh takes the "
            "rest",
        )
    taught, judged = usable[:samples], usable[samples:]
    predictions, calibration = _predictions(result, taught, judged, prior or LatencyPrior.shipped())
    truth = _latencies(judged)
    shares = _sums(usable) / _latencies(usable)
    figures = {
        name: asdict(agreement(truth, p.mean, p.sd if np.isfinite(p.sd).all() else None))
        for name, p in predictions.items()
    }
    return {
        "device": on.spec.name,
        "origin": on.origin,
        "settings": settings.name,
        "seed": seed,
        "run": result.run_id or None,
        "n": n,
        "n_samples": len(taught),
        "n_judged": len(judged),
        "n_layers": len(result.layers),
        "n_measured": result.n_measured,
        "n_from_store": n + len(result.layers) - result.n_measured,
        "skipped": dict(result.skipped),
        "board_s_layers": _board_s(result.layers.values()),
        "board_s_samples": _board_s([network.measurement for network in taught]),
        "calling_ms": result.table.calling_ms,
        "calibration": calibration,
        "sum_over_latency": {
            "median": float(np.median(shares)),
            "least": float(shares.min()),
            "most": float(shares.max()),
        },
        "models": figures,
        "networks": [
            *(_row(space, network, "learn") for network in taught),
            *(
                {
                    **_row(space, network, "judge"),
                    "predicted_ms": {name: float(p.mean[i]) for name, p in predictions.items()},
                }
                for i, network in enumerate(judged)
            ),
        ],
        "plots": [] if plots is None else [_draw(truth, predictions, figures, plots)],
    }


def _predictions(
    result: LayersResult,
    taught: Sequence[NetworkSum],
    judged: Sequence[NetworkSum],
    prior: LatencyPrior,
) -> tuple[dict[str, Prediction], dict[str, float]]:
    """What each model says of the judged networks, and the line that corrects the sum."""
    unknown = np.full(len(judged), np.nan)
    seen, y = _genotypes(taught), _latencies(taught)
    table = result.table.calibrated([network.graph for network in taught], y)
    corrected = np.array([table.predict(network.graph) for network in judged])
    predictions = {
        "layers": Prediction(_sums(judged), unknown),
        "layers-calibrated": Prediction(corrected, unknown),
    }
    labels = [Label.of(n.architecture, n.measurement, folded=False) for n in taught]
    rel_sd = np.array([label.rel_sd or 0.0 for label in labels])
    for name, model in (
        ("flops", FlopsModel()),
        ("params", ParamsModel()),
        ("additive", AdditiveCosts()),
        ("auto", BayesModel(prior)),
    ):
        adapted = model.adapt(seen, y, rel_sd=rel_sd)
        predictions[name] = adapted.predict(_genotypes(judged))
    return predictions, {"offset_ms": table.offset_ms, "slope": table.slope}


def _latencies(networks: Sequence[NetworkSum]) -> Floats:
    return np.array([network.measurement.latency_ms for network in networks], dtype=np.float64)


def _sums(networks: Sequence[NetworkSum]) -> Floats:
    return np.array([network.sum_ms for network in networks], dtype=np.float64)


def _genotypes(networks: Sequence[NetworkSum]) -> NDArray[np.int64]:
    return np.array([network.architecture.genotype for network in networks], dtype=np.int64)


def _board_s(records: Iterable[Measurement]) -> float:
    """Seconds of warm-up and timed inference behind some records."""
    return float(sum(m.details["warmup_s"] + m.details["timed_s"] for m in records))


def _row(space: SearchSpace, network: NetworkSum, used_to: str) -> dict[str, Any]:
    return {
        "arch": space.encode(network.architecture),
        "used_to": used_to,
        "latency_ms": network.measurement.latency_ms,
        "ci95_ms": network.measurement.ci95_ms,
        "measured_at": network.measurement.measured_at,
        "sum_ms": network.sum_ms,
    }


def _draw(
    truth: Floats,
    predictions: Mapping[str, Prediction],
    figures: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> str:
    """One panel per model; returns the path."""
    shown = {
        name: Predicted(truth, p.mean, p.sd, figures[name]["kendall"])
        for name, p in predictions.items()
    }
    path = folder / "layers-scatter.png"
    return str(draw_predictions(shown, unit="ms", truth="measured", marker_size=7.0, path=path))
