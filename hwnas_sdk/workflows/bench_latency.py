"""`hwnas bench latency`: how well unseen devices are predicted from a few of their values.

Reads only what its arguments declare: the training devices' columns and, of each unseen device,
the values of the sampled networks. Loads no shipped weights; the prior and the design of the
samples are made anew. The rest of an unseen device's column serves for judging alone, and what was
sampled is not judged; see `latency_protocol`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.predictors.bayes_transfer import BayesModel
from hwnas_sdk.predictors.metrics import agreement, kendall, kendall_rounded, spearman
from hwnas_sdk.predictors.registry import transfer_model
from hwnas_sdk.predictors.transfer import TransferModel
from hwnas_sdk.report.predictor_plots import Predicted, draw_calibration, draw_predictions
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.tables import BenchTables, load_tables
from hwnas_sdk.workflows.latency_protocol import (
    REFERENCES,
    TASK,
    Case,
    LatencyBenchPlan,
    LatencyProtocol,
    plan_latency_bench,
)

__all__ = ["REFERENCES", "run_bench_latency"]

Floats = NDArray[np.float64]

_MIN_RETEST_PAIRS: Final = 100
_MEANS: Final = (
    "spearman",
    "spearman_noise_ceiling",
    "kendall",
    "spearman_new_families",
    "kendall_new_families",
)


@dataclass(frozen=True)
class _Outcome:
    """One device, judged."""

    answer: dict[str, Any]
    predicted: Predicted
    seconds: float  # spent adapting and predicting all rows


def run_bench_latency(
    data_dirs: Sequence[Path],
    *,
    train_devices: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    samples: int = 10,
    metric: str = "latency",
    train_metric: str | None = None,
    model: str = "auto",
    references: str = "ours",
    leave_one_out: bool = False,
    seed: int = 0,
    plots: Path | None = None,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Predict each device of `devices` from `samples` of its values; compare with its column.

    Args:
        data_dirs: folders of public tables.
        train_devices: known devices; None: the 13 that HELP trains on (by their latencies).
        devices: devices treated as unseen; None: the 6 that HELP tests on, and for energy
            `latency_protocol.ENERGY_DEVICES`.
        samples: how many values of an unseen device the model sees.
        metric: "latency" or "energy", what is predicted.
        train_metric: what is known of the known devices; None: `metric`, and of the default ones
            latency, the prior that searches have of energy.
        model: one of `predictors.registry.model_names()`.
        references: which networks are sampled: "ours" (D-optimal under the prior of the training
            devices), "paper" (HELP's ten, at most 10), "random" (by `seed`),
            "active" (each chosen by the values of those before it, `predictors.active`).
        leave_one_out: each device of `devices` is left out in turn, with what has its values under
            another name, and all the others of `devices` and `train_devices` are known.
        seed: for random references, and of models that draw.
        plots: folder for pictures (PNG), None for none: predicted over published values, and, of
            a model that states a standard deviation, observed over nominal coverage.
        on_event: told of slow models' training, and after each device.

    Returns the JSON document of the contract. Judged are live cells (error below 90 %) that were
    measured on the device and not sampled; with more than `latency_protocol.MANY_SAMPLES` samples
    those alone that compute another function than every sample (``judged`` says which). Per device
    also `noise_rel` (estimated relative noise), `n_samples` (fewer than asked where a reference was
    not measured, which ``notes`` say), `spearman_new_families`, `kendall_new_families` and
    `n_new_families` (over cells that compute another function than every sample),
    `kendall_rounded` (tau-b of a prediction rounded as the device rounds, None for one that does
    not round), `kendall_retest`: tau-b between the two members of the pairs of cells that run the
    same operators (nodes 1 and 2 swapped while edge 1->2 is none), the table's own repeatability;
    `spearman_noise_ceiling`: the square root of Spearman between the two, about what a prediction
    without any error could reach against values this noisy; and `aliases_left_out`.

    Raises: ConfigError for a device the tables do not have (with those they have), an unknown
        model or one of another space, or a training device among the unseen, by name or by its
        values; DataError for missing tables, too few networks, or a folder that cannot be written;
        MissingExtraError for a model whose package is missing. All of them before a model is
        fitted.
    """
    plan = plan_latency_bench(
        train_devices=train_devices,
        devices=devices,
        metric=metric,
        train_metric=train_metric,
        samples=samples,
        model=model,
        references=references,
        leave_one_out=leave_one_out,
        seed=seed,
    )
    kind = transfer_model(plan.model, space=BenchTables.space)
    for path in _pictures(plan, plots):
        check_writable(path)
    protocol = LatencyProtocol(load_tables(data_dirs), plan)
    started = time.perf_counter()
    cases = [protocol.case(device) for device in plan.devices]
    fit_seconds, adapt_seconds = time.perf_counter() - started, 0.0
    fitted: tuple[tuple[str, ...], TransferModel] | None = None
    answers: dict[str, dict[str, Any]] = {}
    predicted: dict[str, Predicted] = {}
    for done, case in enumerate(cases):
        if fitted is None or fitted[0] != case.known:
            on_event(Event(TASK, done, len(cases), f"fitting {plan.model}"))
            started = time.perf_counter()
            fitted = case.known, _fit(protocol, kind, case, on_event)
            fit_seconds += time.perf_counter() - started
        outcome = _predict_device(protocol, fitted[1], case)
        answers[case.device], predicted[case.device] = outcome.answer, outcome.predicted
        adapt_seconds += outcome.seconds
        rho = outcome.answer["spearman"]
        message = f"{case.device}: Spearman {rho:.3f}" if rho is not None else case.device
        on_event(Event(TASK, done + 1, len(cases), message))
    means = {f"mean_{key}": _mean([answer[key] for answer in answers.values()]) for key in _MEANS}
    return {
        "devices": answers,
        **means,
        "judged": plan.judged,
        "model": plan.model,
        "metric": plan.metric,
        "train_metric": plan.train_metric,
        "references": plan.references,
        "samples": plan.samples,
        "train_devices": list(plan.train_devices),
        "leave_one_out": plan.leave_one_out,
        "seed": plan.seed,
        "fit_seconds": round(fit_seconds, 4),
        "adapt_seconds": round(adapt_seconds / len(answers), 4),
        "plots": [] if plots is None else _draw(plan, predicted, plots),
        "notes": [note for case in cases for note in _notes(plan, case)],
    }


def _notes(plan: LatencyBenchPlan, case: Case) -> list[str]:
    """What a reader of the figures would not expect."""
    notes = []
    if len(case.rows) < plan.samples:
        notes.append(
            f"{case.device}: {len(case.rows)} samples instead of {plan.samples}, the other "
            "references were not measured on it"
        )
    if case.aliases:
        notes.append(
            f"{case.device}: left out with it {', '.join(case.aliases)}, whose values are the same "
            "or times a constant"
        )
    return notes


def _pictures(plan: LatencyBenchPlan, folder: Path | None) -> list[Path]:
    """Where pictures go: predictions, calibration."""
    if folder is None:
        return []
    stem = f"{plan.metric}-{plan.model}-{plan.references}"
    return [folder / f"{stem}-{kind}.png" for kind in ("scatter", "calibration")]


def _draw(plan: LatencyBenchPlan, predicted: dict[str, Predicted], folder: Path) -> list[str]:
    """Pictures of all devices; returns their paths."""
    scatter, calibration = _pictures(plan, folder)
    unit = "ms" if plan.metric == "latency" else "mJ"
    drawn = [draw_predictions(predicted, unit=unit, path=scatter)]
    if all(np.isfinite(device.sd).all() for device in predicted.values()):
        drawn.append(draw_calibration(predicted, path=calibration))
    return [str(path) for path in drawn]


def _fit(
    protocol: LatencyProtocol, kind: type[TransferModel], case: Case, on_event: EventSink
) -> TransferModel:
    if kind is BayesModel and case.prior is not None:
        return BayesModel(case.prior)  # what it would fit
    tables = protocol.tables
    return kind.fit(
        tables.genotypes[tables.live],
        protocol.live_columns(case.known),
        seed=protocol.plan.seed,
        on_event=on_event,
    )


def _predict_device(protocol: LatencyProtocol, model: TransferModel, case: Case) -> _Outcome:
    """Predict all rows of one device from a few, and compare."""
    truth, rows = protocol.columns[case.device], case.rows
    seen = truth[rows]  # the only values of the device a model gets
    started = time.perf_counter()
    genotypes = protocol.tables.genotypes
    adapted = model.adapt(genotypes[rows], seen)
    mean, sd = adapted.predict(genotypes)
    spent = time.perf_counter() - started
    judged = case.judged & np.isfinite(mean)
    new = case.new_families & np.isfinite(mean)
    stated = np.isfinite(sd[judged]).all()
    figures = agreement(truth[judged], mean[judged], sd[judged] if stated else None)
    answer: dict[str, Any] = {
        **asdict(figures),
        "spearman_new_families": spearman(truth[new], mean[new]),
        "kendall_new_families": kendall(truth[new], mean[new]),
        "n_new_families": int(new.sum()),
        "kendall_rounded": kendall_rounded(truth[judged], mean[judged]),
        **_repeatability(protocol.tables, truth),
        "noise_rel": getattr(adapted, "noise_rel", None),
        "n_samples": len(rows),
        "aliases_left_out": list(case.aliases),
    }
    shown = Predicted(truth[judged], mean[judged], sd[judged], figures.kendall)
    return _Outcome(answer, shown, spent)


def _repeatability(tables: BenchTables, truth: Floats) -> dict[str, float | None]:
    """How well swapped cells that execute the same operators agree; None with few pairs.

    Both orders of a pair count, so that it does not matter which cell has the lower code. The root
    is the classical bound: two readings that correlate by r correlate by sqrt(r) with what they
    share.
    """
    genotypes, space = tables.genotypes, NasBench201()
    own, other = space.numbers(genotypes), space.numbers(space.swapped(genotypes))
    row_of = {int(code): row for row, code in enumerate(own)}
    firsts = np.flatnonzero((genotypes[:, 2] == 0) & (own < other) & tables.live)
    pairs = [(row, row_of[int(other[row])]) for row in firsts if int(other[row]) in row_of]
    values = truth[np.array(pairs, dtype=np.int64).reshape(-1, 2)]
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < _MIN_RETEST_PAIRS:
        return {"kendall_retest": None, "spearman_noise_ceiling": None}
    rho = spearman(values.reshape(-1), values[:, ::-1].reshape(-1))
    return {
        "kendall_retest": kendall(values[:, 0], values[:, 1]),
        "spearman_noise_ceiling": None if rho is None or rho < 0 else float(np.sqrt(rho)),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
