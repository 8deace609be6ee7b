"""Synthetic devices: random linear costs of operators, so the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.predictors.encodings import FEATURE_NAMES, live_edges, structural_features
from hwnas_sdk.spaces.nasbench201 import NasBench201

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SyntheticDevices:
    genotypes: NDArray[np.int64]
    features: Floats
    latency_ms: dict[str, Floats]
    noise_rel: dict[str, float]


def make_devices(n_devices: int, *, noise_rel: float, seed: int = 0, n_cells: int = 3000):
    rng = np.random.default_rng(seed)
    genes = NasBench201().all_genotypes()
    genes = genes[live_edges(genes).any(axis=1)]
    genes = genes[rng.permutation(len(genes))[:n_cells]]
    features = structural_features(genes)
    latencies, noises = {}, {}
    for i in range(n_devices):
        costs = {
            "constant": 1.0,
            "raw_conv3": rng.uniform(1, 2),
            "raw_conv1": rng.uniform(0.3, 1),
            "raw_pool": rng.uniform(0.2, 1),
            "raw_skip": rng.uniform(0.0, 0.1),
            "live_conv3": rng.uniform(0, 0.3),
        }
        clean = sum(cost * features[:, FEATURE_NAMES.index(n)] for n, cost in costs.items())
        level = 10 ** rng.uniform(-1, 2)
        latencies[f"device{i}"] = level * clean * np.exp(noise_rel * rng.normal(size=len(genes)))
        noises[f"device{i}"] = noise_rel
    return SyntheticDevices(genes, features, latencies, noises)
