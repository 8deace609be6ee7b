"""Cheap latency predictors every learned one must beat.

All take the k reference latencies of the new device and, at most, the known devices' columns;
none has an uncertainty. Source of the list: ProxylessNAS, HELP and our own linear transfer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hwnas_sdk.predictors.encodings import FEATURE_NAMES
from hwnas_sdk.predictors.metrics import spearman

Floats = NDArray[np.float64]

# NAS-Bench-201 on CIFAR-10, per executed operator: millions of MACs and of parameters. Their rank
# is the same on the other data sets.
MACS_M = {"base": 7.78305, "raw_conv3": 35.38944, "raw_conv1": 3.93216}
PARAMS_M = {"base": 0.073306, "raw_conv3": 0.24304, "raw_conv1": 0.028}


def counted(features: Floats, costs: dict[str, float]) -> Floats:
    """MACs or parameters from operator counts, (n, F) -> (n,), in millions."""
    total = np.full(len(features), costs["base"])
    for name, cost in costs.items():
        if name != "base":
            total += cost * features[:, FEATURE_NAMES.index(name)]
    return total


def scaled(known: Floats, references: NDArray[np.int64], latency_ms: Floats) -> Floats:
    """Latency = offset + slope * known, slope >= 0, least squares on the references.

    Shapes: known (n,), references (k,) indices into it, latency_ms (k,) -> (n,).
    """
    x = known[references]
    spread = float(((x - x.mean()) ** 2).sum())
    covariance = float(((x - x.mean()) * (latency_ms - latency_ms.mean())).sum())
    slope = max(covariance / spread, 1e-9) if spread > 0 else 1.0
    predicted: Floats = latency_ms.mean() + slope * (known - x.mean())
    return predicted


def linear_transfer(known: Floats, references: NDArray[np.int64], latency_ms: Floats) -> Floats:
    """Non-negative mixture of the known devices plus an intercept, fitted on the references.

    Shapes: known (n, n_devices), each column divided by its own mean here; references (k,);
    latency_ms (k,) -> (n,), NaN where a known device was not measured.
    """
    columns = known / np.nanmean(known, axis=0)
    design = np.column_stack([np.ones(len(references)), columns[references]])
    level = float(latency_ms.mean())
    weights, _ = optimize.nnls(design, latency_ms / level)
    predicted: Floats = level * (weights[0] + columns @ weights[1:])
    return predicted


def nearest_device(known: Floats, references: NDArray[np.int64], latency_ms: Floats) -> Floats:
    """The known device that ranks the references most alike, scaled. Shapes as above."""
    scores = [spearman(latency_ms, column[references]) for column in known.T]
    best = int(np.argmax([-2.0 if score is None else score for score in scores]))
    return scaled(known[:, best], references, latency_ms)
