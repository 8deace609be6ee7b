"""`hwnas train accuracy`: an ensemble that predicts errors, from tables or a user's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.extras import needs_torch
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.accuracy import AccuracyModel, NetworkEnsemble, to_target
from hwnas_sdk.predictors.metrics import Z_90, agreement
from hwnas_sdk.predictors.paths import path_blocks
from hwnas_sdk.predictors.population import live_rows
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.labels import load_error_labels
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.training_files import checkpoint_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_CLASSES: Final = {"cifar10": 10, "cifar100": 100, "imagenet16_120": 120}
_TASK: Final = "train accuracy"
_FEWEST: Final = 50
_HELD_OUT: Final = 5  # one in so many function families is held out


@dataclass(frozen=True)
class _Labels:
    """Live architectures with an error, and which of them compute the same function."""

    genotypes: Ints
    error_pct: Floats
    families: Ints
    data: dict[str, Any]


def train_accuracy(
    output: Path,
    *,
    data_dirs: Sequence[Path] = (),
    labels: Path | None = None,
    dataset: str = "cifar10",
    n_classes: int | None = None,
    train: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train on labelled architectures; write weights and card.

    The figures are those of the same recipe trained without a fifth of the function families: half
    of these set the width of the interval, the other half judge. The weights then learn from all.
    Checkpoints beside `output` make a killed training continue and end in the same weights; they
    are removed at the end.

    Args:
        output: file to write (.safetensors).
        data_dirs: folders of public tables; or
        labels: a CSV or Parquet file with columns ``arch`` and ``error_pct`` or ``accuracy_pct``.
        dataset: column of the tables, or what the file's numbers are of.
        n_classes: of the data set, for architectures that can only guess; known for the tables'.
        train: learn from so many labels, drawn by `seed`; None: all.
        epochs: of each training; None: the shipped recipe's.
        seed: of split, draw and weights.
        on_event: told after each epoch.

    Returns ``model`` (the file), ``metrics``, ``n_labels``, ``weights_sha256``.

    Raises: ConfigError when not exactly one source is named or the classes are not known; DataError
        for a file that cannot be read or written, or fewer than 50 labels; ModelError for
        the checkpoint of another training; MissingExtraError without torch.
    """
    if bool(data_dirs) == (labels is not None):
        raise ConfigError("name the labels once", hint="--data DIR, or --labels FILE")
    classes = n_classes or N_CLASSES.get(dataset)
    if classes is None:
        raise ConfigError(f"how many classes has {dataset!r}?", hint="--classes N")
    neural = _torch_half()
    check_writable(output)
    known = _from_tables(data_dirs, dataset) if labels is None else _from_file(labels, dataset)
    known = _drawn(known, train, seed)
    plan = neural.EnsemblePlan() if epochs is None else neural.EnsemblePlan(epochs=epochs)
    features = np.concatenate(path_blocks(known.genotypes), axis=1)
    dead_error_pct = 100.0 * (1.0 - 1.0 / classes)
    checkpoint = checkpoint_of(output)
    of_judge = checkpoint.with_suffix(f".judge{checkpoint.suffix}")

    def fitted(rows: NDArray[np.bool_], message: str, checkpoint: Path) -> NetworkEnsemble:
        def told(epoch: int) -> None:
            on_event(Event(_TASK, epoch, plan.epochs, message))

        ensemble: NetworkEnsemble = neural.train_ensemble(
            features[rows], known.error_pct[rows], plan, seed=seed, on_epoch=told,
            checkpoint=checkpoint,
        )  # fmt: skip
        return ensemble

    widths, judged = _split(known.families, seed)
    judge = fitted(~(widths | judged), "without held-out families", of_judge)
    mean, sd = judge.predict((features[widths],))
    deviations = np.abs(to_target(known.error_pct[widths]) - mean) / sd
    widening = float(np.quantile(deviations, 0.9)) / Z_90
    model = AccuracyModel(replace(judge, widening=widening), dead_error_pct=dead_error_pct)
    prediction = model.predict(known.genotypes[judged])
    figures = asdict(agreement(known.error_pct[judged], prediction.mean, prediction.sd))
    metrics = {
        "protocol": "same recipe without a random fifth of the function families; half of them set "
        "the width of the interval, the other half judge",
        "held_out_families": figures,
    }
    final = fitted(np.ones(len(known.genotypes), dtype=np.bool_), "all labels", checkpoint)
    card = AccuracyModel(replace(final, widening=widening), dead_error_pct=dead_error_pct).save(
        output, data={**known.data, "rows": len(known.genotypes), "seed": seed}, metrics=metrics
    )
    for path in (checkpoint, of_judge):
        path.unlink(missing_ok=True)
    return {
        "model": str(output),
        "metrics": figures,
        "n_labels": len(known.genotypes),
        "dataset": dataset,
        "plan": asdict(plan),
        "seed": seed,
        "weights_sha256": card.weights_sha256,
    }


def _split(families: Ints, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that set the width of intervals, and rows that judge; whole families each."""
    names = np.unique(families)
    held = child_rng(seed, _TASK, "split").permutation(names)[: max(len(names) // _HELD_OUT, 2)]
    return np.isin(families, held[::2]), np.isin(families, held[1::2])


def _from_tables(folders: Sequence[Path], dataset: str) -> _Labels:
    tables = load_tables(folders)
    error = tables.error_pct(dataset)
    rows = np.flatnonzero(tables.live & np.isfinite(error))
    data = {"tables": [folder.name for folder in folders], "licence": "that of the tables",
            "dataset": dataset}  # fmt: skip
    return _Labels(tables.genotypes[rows], error[rows], tables.families[rows], data)


def _from_file(path: Path, dataset: str) -> _Labels:
    space = get_space("nasbench201")
    genotypes, error = load_error_labels(path, space)
    live, families = live_rows(space, genotypes), space.family_numbers(genotypes)
    data = {"file": path.name, "licence": "the user's own", "dataset": dataset}
    return _Labels(genotypes[live], error[live], families[live], data)


def _drawn(known: _Labels, n: int | None, seed: int) -> _Labels:
    """All labels, or `n` of them. Raises: DataError for too few."""
    have = len(known.genotypes)
    wanted = have if n is None else n
    if have < max(wanted, _FEWEST) or wanted < _FEWEST:
        raise DataError(
            f"{have} labelled live architectures, {max(wanted, _FEWEST)} are needed",
            code="too_few_rows",
            hint="a search learns from fewer by itself, without a file",
        )
    rows = np.sort(child_rng(seed, _TASK, "train").permutation(have)[:wanted])
    return _Labels(known.genotypes[rows], known.error_pct[rows], known.families[rows], known.data)


def _torch_half() -> Any:
    """The trainer's module. Raises: MissingExtraError without torch."""
    with needs_torch("training networks"):
        from hwnas_sdk.predictors.neural import accuracy_ensemble
    return accuracy_ensemble
