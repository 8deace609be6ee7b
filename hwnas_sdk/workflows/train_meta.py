"""`hwnas train meta`: the MetaPredictor from public tables, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors.metrics import agreement
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.store.tables import load_tables


def train_meta(
    data_dirs: Sequence[Path],
    output: Path,
    *,
    train_devices: Sequence[str],
    devices: Sequence[str] = (),
    metric: str = "latency",
    epochs: int | None = None,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train on `train_devices`, write to `output`, judge on `devices` (told by the references).

    A checkpoint beside `output` makes a killed training continue; it is removed at the end.
    Returns ``model`` (path), ``metrics`` (per judged device), ``weights_sha256``.
    Raises: ConfigError for a device that is not in the tables or is on both sides.
    """
    from hwnas_sdk.predictors.neural.meta import MetaPlan, MetaPredictor

    both = sorted(set(train_devices) & set(devices))
    if both:
        raise ConfigError(f"{', '.join(both)}: a training device cannot judge the training")
    tables = load_tables(data_dirs)
    columns = {name: tables.device(name, metric=metric) for name in (*train_devices, *devices)}
    live = tables.live
    genotypes = tables.genotypes[live]
    plan = MetaPlan() if epochs is None else MetaPlan(epochs=epochs)
    checkpoint = output.with_suffix(".checkpoint")
    output.parent.mkdir(parents=True, exist_ok=True)
    model = MetaPredictor.fit(
        genotypes,
        {name: columns[name][live] for name in train_devices},
        seed=seed,
        plan=plan,
        checkpoint=checkpoint,
        on_event=on_event,
    )
    row_of = {tuple(row): i for i, row in enumerate(genotypes.tolist())}
    references = [row_of.get(tuple(row)) for row in reference_genotypes().tolist()]
    figures = {}
    for name in devices:
        truth = columns[name][live]
        told = [row for row in references if row is not None and truth[row] > 0]
        judged = truth > 0
        prediction = model.adapt(genotypes[told], truth[told]).predict(genotypes)
        figures[name] = asdict(agreement(truth[judged], prediction.mean[judged]))
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
