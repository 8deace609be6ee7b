"""The devices a hypernetwork is trained on, by what the shipped models know of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import executed_cells, structural_features
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace
from hwnas_sdk.workflows.beliefs import network_mib
from hwnas_sdk.workflows.hypernetworks import Floats, SearchDevices, device_vector, known_costs

KNOWN: Final = ("error", "latency", "memory")
"""Objectives there is something to learn from without a measurement."""


def checked_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with the error first, as a hypernetwork counts its objectives.

    Raises: ConfigError for a name that is unknown here or doubled, or without error and latency.
    """
    if "energy" in names:
        raise ConfigError(
            "a hypernetwork cannot learn energy: no shipped model knows it for any device",
            hint=f"two or three of {', '.join(KNOWN)}; 'hwnas search --method auto' answers energy",
        )
    unknown = [name for name in names if name not in KNOWN]
    if unknown or len(set(names)) != len(names) or not {"error", "latency"} <= set(names):
        raise ConfigError(
            f"objectives {','.join(names)!r} are not what a hypernetwork can learn",
            hint="error,latency or error,latency,memory",
        )
    return "error", *(name for name in names if name != "error")


def shipped_devices(
    space: SearchSpace, prior: LatencyPrior, references: Genotypes, objectives: Sequence[str]
) -> SearchDevices:
    """The prior's own devices.

    Memory is counted, not measured: a device's own is an affine function of it (see `MemoryModel`),
    and scaling takes that away, so all devices share one table.

    Args:
        space: small enough to be predicted as a whole.
        prior: knows the latencies.
        references: what a device is told by, (k, d).
        objectives: from `checked_objectives`.
    """
    everything = space.grid()
    rows = space.numbers(references)
    latencies = known_costs(prior, everything)
    tables = {"latency": latencies}
    if "memory" in objectives:
        tables["memory"] = np.broadcast_to(memory_mib(space, everything), latencies.shape)
    costs = np.stack([tables[name] for name in objectives[1:]], axis=1)  # (T, m - 1, size)
    vectors = [device_vector([metric[rows] for metric in device]) for device in costs]
    return SearchDevices(np.array(vectors), costs)


def told_by(
    space: SearchSpace, latency: LatencyModel, references: Genotypes, objectives: Sequence[str]
) -> Floats:
    """Vector of a device from what is believed of its latencies; see `shipped_devices`."""
    parts = {"latency": latency.predict(structural_features(references)).mean}
    if "memory" in objectives:
        parts["memory"] = memory_mib(space, references)
    return device_vector([parts[name] for name in objectives[1:]])


def memory_mib(space: SearchSpace, genotypes: Genotypes) -> Floats:
    """Parameters and live activations of networks as one deploys them, (n, d) -> (n,). Unit: MiB.

    Dead networks are counted unfolded; they have no other form.
    """
    traits = traits_of(space)
    live = ~traits.dead(genotypes)
    cells = np.where(live[:, None], executed_cells(genotypes), genotypes)
    # What is deployed depends on the function alone; there are a third as many as networks.
    first: dict[Hashable, tuple[int, ...]] = {}

    def size(cell: tuple[int, ...], *, alive: bool) -> float:
        if not alive:
            return network_mib(space, cell, folded=False)
        return network_mib(space, first.setdefault(traits.family(cell), cell), folded=True)

    return np.array(
        [
            size(cell, alive=alive)
            for cell, alive in zip(map(tuple, cells.tolist()), live, strict=True)
        ]
    )
