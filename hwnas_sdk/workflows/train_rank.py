"""`hwnas train rank`: a rank predictor for one device, from published tables, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.files import check_writable
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.bench_rank import RankBench, same_family, train_model
from hwnas_sdk.workflows.rank_protocol import RankBenchPlan


def train_rank(
    data_dirs: Sequence[Path],
    device: str,
    output: Path,
    *,
    train: int = 500,
    model: str = "posterior",
    loss: str = "listwise",
    metrics: tuple[str, ...] = ("latency",),
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train on `train` rows of the tables, judge on all others, write weights and card.

    Returns ``model`` (the file), ``kind``, ``device`` and ``metrics``: the figures of `bench rank`
    on the architectures that were not trained on.

    Raises: ConfigError for an unknown device, DataError for missing tables, too few rows or a
        path that cannot be written, MissingExtraError for the network without torch.
    """
    plan = RankBenchPlan(
        devices=(device,), train=train, model=model, loss=loss, seeds=1, metrics=metrics
    )
    check_writable(output)
    bench = RankBench(load_tables(data_dirs), plan)
    rows = bench.training_rows(device, seed)
    trained, seconds = train_model(bench, device, rows, seed, on_event=on_event)
    judged = bench.rows[device]
    scores = trained.score(bench.tables.genotypes[judged], device)
    unseen = ~np.isin(judged, rows)
    figures = bench.judge(device, unseen).figures(
        scores[unseen], labelled=same_family(bench, device, rows)[unseen], seed=seed
    )
    data = {
        "tables": "NAS-Bench-201 errors (NATS-Bench, MIT) and device tables of the folders named",
        "device": device,
        "objectives": ["error", *metrics],
        "rows": len(rows),
        "seed": seed,
        "sampling": "latin hypercube over the decisions",
    }
    card = trained.save(output, data=data, metrics={**figures, "fit_seconds": round(seconds, 2)})
    return {
        "model": str(output),
        "kind": card.kind,
        "device": device,
        "metrics": dict(card.metrics),
        "weights_sha256": card.weights_sha256,
    }
