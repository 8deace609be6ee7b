"""`hwnas train meta`: the MetaPredictor from public tables, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.judged_devices import (
    Floats,
    Ints,
    judged,
    rows_of,
    told_and_rest,
    two_sides,
)
from hwnas_sdk.workflows.training_files import checkpoint_of


def train_meta(
    data_dirs: Sequence[Path],
    output: Path,
    *,
    train_devices: Sequence[str],
    devices: Sequence[str] = (),
    metric: str = "latency",
    epochs: int | None = None,
    seed: int = 0,
    torch_device: str = "cpu",
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train on `train_devices`, write to `output`, judge on `devices`.

    A judged device is told by its values of the paper's references; its other live cells judge.

    A checkpoint beside `output` makes a killed training continue; it is removed at the end.
    The weights are trained on `torch_device` and work on any.
    Returns ``model`` (path), ``metrics`` (per judged device), ``weights_sha256``.
    Raises: ConfigError for a device that is not in the tables, or is on both sides by name or by
    its values, or for a place that torch cannot work on; DataError for a file that could not be
    written, or a judged device without measured references. All before the training.
    """
    from hwnas_sdk.networks.resumable import chosen_torch_device
    from hwnas_sdk.predictors.neural.meta import MetaPlan, MetaPredictor

    chosen_torch_device(torch_device)  # before the tables are read
    check_writable(output)
    tables = load_tables(data_dirs)
    known, columns = two_sides(tables, train_devices, devices, metric=metric)
    genotypes = tables.genotypes[tables.live]
    plan = MetaPlan() if epochs is None else MetaPlan(epochs=epochs)
    references = rows_of(tables, reference_genotypes().tolist())
    for name, truth in columns.items():
        told_and_rest(name, truth, references)  # not after minutes of training
    checkpoint = checkpoint_of(output)
    model = MetaPredictor.fit(
        genotypes,
        known,
        seed=seed,
        plan=plan,
        checkpoint=checkpoint,
        on_event=on_event,
        torch_device=torch_device,
    )

    def predict(told: Ints, values: Floats, rest: Ints) -> Prediction:
        return model.adapt(genotypes[told], values).predict(genotypes[rest])

    figures = {name: judged(name, truth, references, predict) for name, truth in columns.items()}
    card = model.save(
        output,
        data={"tables": [str(path.name) for path in data_dirs], "metric": metric,
              "devices": list(train_devices), "licence": "that of the tables"},
        metrics={"judged_on": figures},
    )  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    return {
        "model": str(output),
        "metrics": figures,
        "weights_sha256": card.weights_sha256,
        "train_devices": list(train_devices),
        "plan": asdict(plan),
        "seed": seed,
    }
