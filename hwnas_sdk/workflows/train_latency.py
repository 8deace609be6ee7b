"""`hwnas train latency`: the prior that predictions of every device start from, as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.judged_devices import Floats, Ints, judged, rows_of, two_sides
from hwnas_sdk.workflows.priors import METRIC
from hwnas_sdk.workflows.profile import reference_architectures

_TASK: Final = "train latency"
REFERENCES: Final = "ours"
"""The networks `hwnas profile` measures unless told otherwise: they tell of a judged device."""


def train_latency(
    data_dirs: Sequence[Path],
    output: Path,
    *,
    train_devices: Sequence[str],
    devices: Sequence[str] = (),
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Fit the prior on `train_devices`, write it to `output`, judge it on `devices`.

    A judged device is told by its values of the reference set "ours"; its other live cells judge.
    Nothing is random.

    Returns ``model`` (path), ``metrics`` (per judged device), ``weights_sha256``.

    Raises: ConfigError for a device that is not in the tables, or is on both sides by name or by
        its values; DataError for missing tables, a judged device without a reference, or a path
        that cannot be written.
    """
    check_writable(output)
    tables = load_tables(data_dirs)
    known, columns = two_sides(tables, train_devices, devices)
    features = structural_features(tables.genotypes[tables.live])
    on_event(Event(_TASK, 0, 1 + len(devices)))
    prior = LatencyPrior.fit(features, known)
    space = get_space(tables.space)
    references = rows_of(
        tables, [space.decode(arch).genotype for arch in reference_architectures(REFERENCES)]
    )

    figures = {}
    for done, (name, truth) in enumerate(columns.items(), start=1):
        on_event(Event(_TASK, done, 1 + len(devices), name))
        figures[name] = judged(name, truth, references, prediction_by(prior, features))
    card = prior.save(
        output,
        data={"tables": [path.name for path in data_dirs], "metric": METRIC,
              "devices": list(train_devices), "licence": "that of the tables"},
        metrics={
            "protocol": f"each device told by its values of the reference set {REFERENCES}, judged "
            "on its other live cells",
            "judged_on": figures,
        },
    )  # fmt: skip
    on_event(Event(_TASK, 1 + len(devices), 1 + len(devices)))
    return {
        "model": str(output),
        "metrics": figures,
        "weights_sha256": card.weights_sha256,
        "train_devices": list(train_devices),
        "metric": METRIC,
    }


def prediction_by(
    prior: LatencyPrior, features: Floats
) -> Callable[[Ints, Floats, Ints], Prediction]:
    """What `judged` asks: `prior` told some rows of `features` (n, F) and asked for others."""
    return lambda told, values, rest: prior.adapt(features[told], values).predict(features[rest])
