"""MODNAS: one hypernetwork for all devices, trained without the unseen one, then only asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.workflows.entrants.entry import TASK, Entry
from hwnas_sdk.workflows.hypernetworks import (
    SearchDevices,
    device_vector,
    hypernetwork_plan,
    known_costs,
    train_hypernetwork,
)
from hwnas_sdk.workflows.search_protocol import Rows

if TYPE_CHECKING:
    from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork


def modnas(entry: Entry) -> list[Rows]:
    """Train on the training devices once per seed, then look 24 preferences up."""
    return _propose(entry, _trained)


def random_hypernetwork(entry: Entry) -> list[Rows]:
    """RHPN: a hypernetwork of large random logits, never trained (MODNAS, baselines)."""
    return _propose(entry, _random)


def _propose(entry: Entry, make: Callable[[Entry, Rows], MetaHypernetwork]) -> list[Rows]:
    from hwnas_sdk.search.modnas.proposals import propose_distinct

    entry.refuse_rounds()
    latency_rows = entry.reference_rows()
    net = make(entry, latency_rows)
    with entry.timed("search"):
        vector = device_vector([entry.oracle.latencies(latency_rows)])
        row_of, eligible = entry.contest.row_of, entry.eligible

        def may(genotype: tuple[int, ...]) -> bool:
            row = row_of.get(genotype, -1)
            return row >= 0 and bool(eligible[row])

        wanted = equidistant(2, entry.plan.candidates)
        genotypes = propose_distinct(net, vector, wanted, may=may)
    if not len(genotypes):
        raise DataError(f"{entry.device}: no proposal is in the tables", code="nothing_found")
    return [entry.contest.rows(genotypes)]


def _trained(entry: Entry, latency_rows: Rows) -> MetaHypernetwork:
    """The hypernetwork of this seed; shared by devices that know the same."""
    error_rows = entry.accuracy_rows()
    key = ("modnas", entry.seed, error_rows.tobytes(), latency_rows.tobytes())
    shared = entry.contest.shared
    entry.oracle.errors(error_rows)  # of every device that uses what was learned from them
    if key not in shared:
        with entry.timed("train"):
            accuracy = entry.fit_accuracy(error_rows)
            net = train_hypernetwork(
                entry.contest.space,
                accuracy.predict(entry.contest.space.grid()).mean,
                search_devices(entry, latency_rows),
                hypernetwork_plan(seed=int(child_rng(entry.seed, TASK, "modnas").integers(2**31))),
                on_event=entry.on_event,
            ).hypernetwork
        shared[key] = net, entry.spent["train"]
    trained: MetaHypernetwork
    trained, entry.spent["train"] = shared[key]
    return trained


def search_devices(entry: Entry, latency_rows: Rows) -> SearchDevices:
    """The training devices: told by the same references, predicted from their whole columns."""
    contest = entry.contest
    key = ("search devices", latency_rows.tobytes())
    if key not in contest.shared:
        costs = known_costs(contest.prior, contest.space.grid())
        vectors = []
        for device, column in contest.known.items():
            seen = column[latency_rows]
            if not np.isfinite(seen).all():
                raise DataError(f"{device}: some reference latencies are missing")
            vectors.append(device_vector([seen]))
        contest.shared[key] = SearchDevices(np.array(vectors), costs[:, None])
    devices: SearchDevices = contest.shared[key]
    return devices


def _random(entry: Entry, latency_rows: Rows) -> MetaHypernetwork:
    import torch

    from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan, MetaHypernetwork

    seed = int(child_rng(entry.seed, TASK, "rhpn").integers(2**62))
    generator = torch.Generator().manual_seed(seed)
    plan = HypernetworkPlan(choices=entry.contest.space.choices, n_features=len(latency_rows))
    net = MetaHypernetwork(plan, generator=generator)
    with torch.no_grad():
        for table in net.tables:
            table.copy_(torch.randn(table.shape, generator=generator))
    return net
