"""The models of the rank bench: trained on a device's labels, asked for scores of all its rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.predictors.rank import RankPredictor, encoders_checkpoint
from hwnas_sdk.predictors.rank_independent import independent_ranks, independent_within
from hwnas_sdk.workflows.rank_protocol import Floats, Ints
from hwnas_sdk.workflows.rank_tables import RankBench, torch_half


@dataclass(frozen=True)
class Scored:
    """Scores of the judged rows by each way of ranking, and how long they took."""

    scores: dict[str, Floats]
    within: dict[str, Floats | None]  # ranks inside the judge's batches, if a model can say them
    fit_seconds: float
    score_seconds: float


def train_model(
    bench: RankBench,
    device: str,
    train: Ints,
    seed: int,
    *,
    checkpoint: Path | None = None,
    torch_device: str = "cpu",
) -> tuple[Any, float]:
    """The plan's model of one device from the labels of some rows, and the seconds it took.

    Encoders are trained before the clock starts: they belong to the space, not to a platform.
    `checkpoint` and `torch_device` are the network's, see `RankNetwork.train`; the encoders'
    checkpoint lies beside it.
    """
    labels = bench.labels(device, train)
    given = (bench.space, labels.genotypes, labels.error_pct, {device: labels.costs})
    if bench.plan.model == "posterior":
        started = time.perf_counter()
        model: Any = RankPredictor.fit(*given, seed=seed)
        return model, time.perf_counter() - started
    if checkpoint is not None:
        bench.pretrained(encoders_checkpoint(checkpoint))
    encoder, plan = bench.encoder, _network_plan(bench)
    started = time.perf_counter()
    model = torch_half().RankNetwork.train(
        *given, encoder=encoder, plan=plan, seed=seed, checkpoint=checkpoint,
        on_event=bench.on_event, torch_device=torch_device,
    )  # fmt: skip
    return model, time.perf_counter() - started


def _trained_once(bench: RankBench, device: str, train: Ints, seed: int) -> tuple[Any, float]:
    """As `train_model`; where platforms are added to others, no model is trained twice."""
    key = (device, seed)
    if key in bench.trained:
        return bench.trained[key]
    trained = train_model(bench, device, train, seed)
    if bench.plan.new_platform:
        bench.trained[key] = trained
    return trained


def ranks_within(bench: RankBench, model: Any, sets: Ints, device: str) -> Floats | None:
    """Ranks inside each set, (s, k, d) -> (s, k); None for the network, which has one score."""
    if bench.plan.model != "posterior":
        return None
    ranks: Floats = model.ranks_within(sets, device)
    return ranks


def _network_plan(bench: RankBench) -> Any:
    return torch_half("rank_training").RankPlan(
        loss=bench.plan.loss, batch_size=bench.plan.batch_size
    )


def scored(bench: RankBench, device: str, train: Ints, seed: int) -> Scored:
    """Scores of the judged rows by the model and by what the plan compares it with."""
    wanted = bench.tables.genotypes[bench.rows[device]]
    model, fit_seconds = _trained_once(bench, device, train, seed)
    started = time.perf_counter()
    scores: dict[str, Floats] = {"score": model.score(wanted, device)}
    score_seconds = time.perf_counter() - started
    labels = bench.labels(device, train)
    sets = wanted[bench.judges[device].batches(seed)]
    within = {"score": ranks_within(bench, model, sets, device)}
    if bench.plan.independent and bench.plan.model == "posterior":
        learned = model.platform(device)
        scores["independent"] = -independent_ranks(bench.space, learned, wanted)
        within["independent"] = independent_within(bench.space, learned, sets)
    elif bench.plan.independent:
        predicted = torch_half("independent").independent_predictions(
            bench.space,
            labels.genotypes,
            labels.error_pct,
            labels.costs,
            wanted,
            encoder=bench.encoder,
            plan=_network_plan(bench),
            seed=seed,
            on_event=bench.on_event,
        )
        scores["independent"] = -pareto.ranks(predicted).astype(np.float64)
    if bench.plan.new_platform:
        # The device before it in the list (the last one for the first).
        other = bench.plan.devices[bench.plan.devices.index(device) - 1]
        base, _ = _trained_once(bench, other, bench.training_rows(other, seed), seed)
        more = base.add_platform(device, labels.genotypes, labels.costs, error_pct=labels.error_pct)
        scores["new_platform"] = more.score(wanted, device)
    return Scored(scores, within, fit_seconds, score_seconds)
