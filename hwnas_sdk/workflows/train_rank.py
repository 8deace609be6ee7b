"""`hwnas train rank`: a rank predictor for one device, from published tables, as a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.predictors.rank import encoders_checkpoint
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.rank_models import ranks_within, train_model
from hwnas_sdk.workflows.rank_protocol import RankBenchPlan
from hwnas_sdk.workflows.rank_tables import RankBench, same_family, torch_half
from hwnas_sdk.workflows.training_files import checkpoint_of

_TASK: Final = "train rank"


def train_rank(
    data_dirs: Sequence[Path],
    device: str,
    output: Path,
    *,
    train: int = 500,
    model: str = "posterior",
    loss: str = "listwise",
    metrics: tuple[str, ...] = ("latency",),
    torch_device: str = "cpu",
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train on `train` rows of the tables, judge on all others, write weights and card.

    Checkpoints beside `output` make a killed training of the network continue and end in the same
    weights; they are removed at the end.

    Args:
        data_dirs: folders of public tables.
        device: one of their devices.
        output: file to write (.safetensors).
        train: rows to learn from.
        model: "posterior" or "network".
        loss: of the network.
        metrics: costs beside the error.
        torch_device: where the network trains.
        seed: of the draw of rows, and of the model.
        on_event: told of each part of the work, and by the network after each epoch.

    Returns ``model`` (the file), ``kind``, ``device``, ``weights_sha256`` and ``metrics``: the
    figures of `bench rank` on the architectures that were not trained on, how many these are
    (``n``), their true fronts and ties (``n_fronts``, ``n_tied_pairs``).

    Raises: ConfigError for an unknown device or place, DataError for missing tables, too few rows
        or a path that cannot be written, ModelError for the checkpoint of another training,
        MissingExtraError for the network without torch.
    """
    plan = RankBenchPlan(
        devices=(device,), train=train, model=model, loss=loss, seeds=1, metrics=metrics
    )
    network = model == "network"
    if network:
        torch_half("rank_training").chosen_torch_device(torch_device)
    elif torch_device != "cpu":
        raise ConfigError("the posterior needs no torch device", hint="--model network")
    check_writable(output)

    def tell(done: int, message: str) -> None:
        if not network:  # which tells of its epochs
            on_event(Event(_TASK, done, 2, message))

    bench = RankBench(load_tables(data_dirs), plan, on_event=on_event)
    rows = bench.training_rows(device, seed)
    tell(0, f"learning from {train} labels")
    checkpoint = checkpoint_of(output)
    trained, seconds = train_model(
        bench, device, rows, seed, checkpoint=checkpoint, torch_device=torch_device
    )
    judged = bench.rows[device]
    tell(1, f"judging on {len(judged) - train} other architectures")
    scores = trained.score(bench.tables.genotypes[judged], device)
    unseen = ~np.isin(judged, rows)
    judge = bench.judge(device, unseen)
    sets = bench.tables.genotypes[judged[unseen][judge.batches(seed)]]
    within = ranks_within(bench, trained, sets, device)
    labelled = same_family(bench, device, rows)[unseen]
    figures = judge.figures(scores[unseen], labelled=labelled, seed=seed, within=within)
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    data = {
        "tables": "NAS-Bench-201 errors (NATS-Bench, MIT) and device tables of the folders named",
        "device": device,
        "objectives": ["error", *metrics],
        "rows": len(rows),
        "seed": seed,
        "sampling": "latin hypercube over the decisions",
    }
    card = trained.save(
        output,
        data=data,
        metrics={**known, **judge.counts(), "fit_seconds": round(seconds, 2)},
    )
    tell(2, "written")
    for path in (checkpoint, encoders_checkpoint(checkpoint)):
        path.unlink(missing_ok=True)
    return {
        "model": str(output),
        "kind": card.kind,
        "device": device,
        "metrics": dict(card.metrics),
        "weights_sha256": card.weights_sha256,
    }
