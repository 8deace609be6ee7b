"""`hwnas bench latency`: how well unseen devices are predicted from a few of their values.

Reads only what its arguments declare: the training devices' columns and, of each unseen device,
the values of the reference networks. Loads no shipped weights; the prior and the design of the
references are made anew. The rest of an unseen device's column serves for judging alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.active import N_START, next_network
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.bayes_transfer import BayesModel
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.metrics import agreement, kendall
from hwnas_sdk.predictors.references import PAPER_INDICES, d_optimal_references
from hwnas_sdk.predictors.registry import model_names, transfer_model
from hwnas_sdk.predictors.transfer import TransferModel
from hwnas_sdk.report.predictor_plots import Predicted, draw_calibration, draw_predictions
from hwnas_sdk.store.tables import BenchTables, load_tables

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

REFERENCES: Final = ("ours", "paper", "random", "active")
_MIN_RETEST_PAIRS: Final = 100
_TASK: Final = "bench latency"


@dataclass(frozen=True)
class _Bench:
    """What stays the same over the unseen devices. Rows are those of the tables."""

    tables: BenchTables
    features: Floats  # (n, F)
    columns: dict[str, Floats]  # every device of the metric, (n,), NaN = not measured
    metric: str
    samples: int
    model: str
    references: str
    seed: int


@dataclass(frozen=True)
class _Fitted:
    """What was learned from the training devices."""

    model: TransferModel
    prior: LatencyPrior | None  # None for references that need no design


@dataclass(frozen=True)
class _Outcome:
    """One device, judged."""

    answer: dict[str, Any]
    predicted: Predicted
    seconds: float  # spent adapting and predicting all rows


def run_bench_latency(
    data_dirs: Sequence[Path],
    *,
    train_devices: Sequence[str],
    devices: Sequence[str],
    samples: int = 10,
    metric: str = "latency",
    model: str = "bayes",
    references: str = "ours",
    leave_one_out: bool = False,
    seed: int = 0,
    plots: Path | None = None,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Predict each device of `devices` from `samples` of its values; compare with its column.

    Args:
        data_dirs: folders of public tables.
        train_devices: known devices.
        devices: devices treated as unseen.
        samples: how many values of an unseen device the model sees.
        metric: "latency" or "energy".
        model: one of `predictors.registry.model_names()`.
        references: which networks are sampled: "ours" (D-optimal under the prior of the training
            devices), "paper" (HELP's ten, at most 10), "random" (by `seed`),
            "active" (each chosen by the values of those before it, `predictors.active`).
        leave_one_out: each device of `devices` is left out in turn, and all the others of
            `devices` and `train_devices` are known.
        seed: for random references, and of models that draw.
        plots: folder for pictures (PNG), None for none: predicted over published values, and, of
            a model that states a standard deviation, observed over nominal coverage.
        on_event: told after each device.

    Returns the JSON document of the contract. Per device also `noise_rel` (estimated relative
    noise), `n_samples` and `kendall_retest`: tau-b between the two members of the pairs of cells
    that run the same operators (nodes 1 and 2 swapped while edge 1->2 is none), the table's own
    repeatability. Evaluated are live cells (error below 90 %) that were measured on the device.

    Raises: ConfigError for a device the tables do not have (with those they have), an unknown
        model, or a training device among the unseen; DataError for missing tables.
    """
    _check_choice("model", model, model_names())
    _check_choice("reference set", references, REFERENCES)
    _check_counts(samples, references, devices)
    tables = load_tables(data_dirs)
    for name in [*train_devices, *devices]:
        tables.device(name, metric=metric)
    bench = _Bench(
        tables=tables,
        features=structural_features(tables.genotypes),
        columns=tables.metric(metric),
        metric=metric,
        samples=samples,
        model=model,
        references=references,
        seed=seed,
    )
    fit_seconds = adapt_seconds = 0.0
    fitted: _Fitted | None = None
    answers: dict[str, dict[str, Any]] = {}
    predicted: dict[str, Predicted] = {}
    unseen = list(dict.fromkeys(devices))
    for done, device in enumerate(unseen):
        if fitted is None or leave_one_out:
            started = time.perf_counter()
            left_out = device if leave_one_out else None
            fitted = _fit(bench, _known_devices(train_devices, unseen, left_out))
            fit_seconds += time.perf_counter() - started
        started = time.perf_counter()
        outcome = _predict_device(bench, fitted, device)
        answers[device], predicted[device] = outcome.answer, outcome.predicted
        fit_seconds += time.perf_counter() - started - outcome.seconds
        adapt_seconds += outcome.seconds
        rho = answers[device]["spearman"]
        message = f"{device}: Spearman {rho:.3f}" if rho is not None else device
        on_event(Event(_TASK, done + 1, len(unseen), message))
    drawn = [] if plots is None else _draw(bench, predicted, plots)
    return {
        "devices": answers,
        "mean_spearman": _mean([answer["spearman"] for answer in answers.values()]),
        "mean_kendall": _mean([answer["kendall"] for answer in answers.values()]),
        "model": model,
        "metric": metric,
        "references": references,
        "samples": samples,
        "train_devices": list(train_devices),
        "leave_one_out": leave_one_out,
        "seed": seed,
        "fit_seconds": round(fit_seconds, 4),
        "adapt_seconds": round(adapt_seconds / len(answers), 4),
        "plots": drawn,
    }


def _draw(bench: _Bench, predicted: dict[str, Predicted], folder: Path) -> list[str]:
    """Pictures of all devices; returns their paths."""
    stem = f"{bench.metric}-{bench.model}-{bench.references}"
    unit = "ms" if bench.metric == "latency" else "mJ"
    drawn = [draw_predictions(predicted, unit=unit, path=folder / f"{stem}-scatter.png")]
    if all(np.isfinite(device.sd).all() for device in predicted.values()):
        drawn.append(draw_calibration(predicted, path=folder / f"{stem}-calibration.png"))
    return [str(path) for path in drawn]


def _check_choice(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"unknown {what} {value!r}", hint=f"one of {', '.join(known)}")


def _check_counts(samples: int, references: str, devices: Sequence[str]) -> None:
    if not devices:
        raise ConfigError("no device to predict", hint="--devices X,Y")
    if samples < 1:
        raise ConfigError(f"cannot learn a device from {samples} samples", hint="--samples 10")
    if references == "paper" and samples > len(PAPER_INDICES):
        raise ConfigError(
            f"the paper's reference set has {len(PAPER_INDICES)} networks, not {samples}",
            hint="use --references ours for more samples",
        )


def _known_devices(
    train_devices: Sequence[str], unseen: Sequence[str], left_out: str | None
) -> list[str]:
    """Training devices; with one `left_out`, all others of both lists."""
    if left_out is not None:
        known = [d for d in dict.fromkeys([*train_devices, *unseen]) if d != left_out]
    else:
        known = list(dict.fromkeys(train_devices))
        leaked = sorted(set(known) & set(unseen))
        if leaked:
            raise ConfigError(
                f"{', '.join(leaked)}: a training device cannot also be an unseen one",
                hint="--leave-one-out leaves each device out of its own prediction",
            )
    if not known:
        raise ConfigError("no training device", hint="--train-devices A,B")
    return known


def _fit(bench: _Bench, known: Sequence[str]) -> _Fitted:
    live = bench.tables.live
    latencies = {name: bench.columns[name][live] for name in known}
    model = transfer_model(bench.model).fit(
        bench.tables.genotypes[live], latencies, seed=bench.seed
    )
    prior = None
    if bench.references in ("ours", "active"):
        if isinstance(model, BayesModel):
            prior = model.prior
        else:
            prior = LatencyPrior.fit(bench.features[live], latencies)
    return _Fitted(model, prior)


def _references(bench: _Bench, fitted: _Fitted, device: str) -> Indices:
    """Rows to sample on `device`: live, and measured there."""
    column = bench.columns[device]
    eligible = bench.tables.live & np.isfinite(column) & (column > 0)
    if bench.references == "paper":
        row_of = {int(index): row for row, index in enumerate(bench.tables.index)}
        rows = [row_of[i] for i in PAPER_INDICES if i in row_of and eligible[row_of[i]]]
        chosen = np.array(rows[: bench.samples], dtype=np.int64)
    elif int(eligible.sum()) < bench.samples:
        chosen = np.empty(0, dtype=np.int64)
    elif bench.references == "random":
        rng = child_rng(bench.seed, _TASK, device)
        chosen = rng.choice(np.flatnonzero(eligible), bench.samples, replace=False)
    elif bench.references == "active":
        assert fitted.prior is not None
        chosen = _active(bench, fitted.prior, column, eligible)
    else:
        assert fitted.prior is not None
        chosen = d_optimal_references(
            fitted.prior, bench.features, bench.samples, eligible=eligible
        )
    if not chosen.size:
        raise DataError(
            f"{device}: {int(eligible.sum())} measured live cells, {bench.samples} are needed",
            code="too_few_rows",
        )
    return chosen


def _active(
    bench: _Bench, prior: LatencyPrior, column: Floats, eligible: NDArray[np.bool_]
) -> Indices:
    """One row after the other, each chosen by the values of those before it."""
    n_start = min(N_START, bench.samples)
    chosen = d_optimal_references(prior, bench.features, n_start, eligible=eligible).tolist()
    while len(chosen) < bench.samples:
        posterior = prior.adapt(bench.features[chosen], column[chosen])
        left = eligible.copy()
        left[chosen] = False
        chosen.append(next_network(posterior, bench.features, eligible=left, seed=bench.seed))
    return np.array(chosen, dtype=np.int64)


def _predict_device(bench: _Bench, fitted: _Fitted, device: str) -> _Outcome:
    """Predict all rows of one device from a few, and compare."""
    rows = _references(bench, fitted, device)
    seen = bench.columns[device][rows]  # the only values of the device a model gets
    started = time.perf_counter()
    genotypes = bench.tables.genotypes
    adapted = fitted.model.adapt(genotypes[rows], seen)
    mean, sd = adapted.predict(genotypes)
    spent = time.perf_counter() - started
    truth = bench.columns[device]
    judged = bench.tables.live & np.isfinite(truth) & np.isfinite(mean)
    stated = np.isfinite(sd[judged]).all()
    figures = agreement(truth[judged], mean[judged], sd[judged] if stated else None)
    answer: dict[str, Any] = {
        **asdict(figures),
        "kendall_retest": _retest(bench.tables, truth),
        "noise_rel": getattr(adapted, "noise_rel", None),
        "n_samples": len(rows),
    }
    shown = Predicted(truth[judged], mean[judged], sd[judged], figures.kendall)
    return _Outcome(answer, shown, spent)


def _retest(tables: BenchTables, truth: Floats) -> float | None:
    """tau-b between swapped cells that execute the same operators; None with few pairs."""
    genotypes = tables.genotypes
    swapped = genotypes[:, [1, 0, 2, 3, 5, 4]]
    weight = 5 ** np.arange(genotypes.shape[1])
    own, other = genotypes @ weight, swapped @ weight
    row_of = {int(code): row for row, code in enumerate(own)}
    firsts = np.flatnonzero((genotypes[:, 2] == 0) & (own < other) & tables.live)
    pairs = [(row, row_of[int(other[row])]) for row in firsts if int(other[row]) in row_of]
    values = truth[np.array(pairs, dtype=np.int64).reshape(-1, 2)]
    values = values[np.isfinite(values).all(axis=1)]
    return kendall(values[:, 0], values[:, 1]) if len(values) >= _MIN_RETEST_PAIRS else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
