"""MODNAS: one hypernetwork for all devices, trained without the unseen one, then only asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.workflows.entrants.entry import TASK, Entry
from hwnas_sdk.workflows.hypernetworks import (
    PROPOSALS_PER_CANDIDATE,
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
    """Look many preferences up, as `hwnas search` does, and choose by expected hypervolume."""
    entry.refuse_rounds()
    latency_rows = entry.reference_rows()
    net = _trained(entry, latency_rows)
    with entry.timed("fit"):
        predict = entry.both(
            entry.fit_accuracy(entry.accuracy_rows()), entry.fit_latency(latency_rows)
        )
    with entry.timed("search"):
        n = PROPOSALS_PER_CANDIDATE * entry.plan.candidates
        rows = _looked_up(entry, net, latency_rows, n)
        values, sd = predict(entry.contest.genotypes[rows])
        return [entry.choose(rows, values, sd, known=None, seed=entry.child_seed(0))]


def modnas_look_up(entry: Entry) -> list[Rows]:
    """As published: one architecture per preference, nothing chosen among them."""
    entry.refuse_rounds()
    return [_one_each(entry, _trained(entry, entry.reference_rows()))]


def random_hypernetwork(entry: Entry) -> list[Rows]:
    """RHPN: a hypernetwork of large random logits, never trained (MODNAS, baselines)."""
    entry.refuse_rounds()
    return [_one_each(entry, _random(entry, entry.reference_rows()))]


def _one_each(entry: Entry, net: MetaHypernetwork) -> Rows:
    with entry.timed("search"):
        return _looked_up(entry, net, entry.reference_rows(), entry.plan.candidates)


def _looked_up(entry: Entry, net: MetaHypernetwork, latency_rows: Rows, n: int) -> Rows:
    """Rows of n different architectures for n preferences.

    Raises: DataError when none of them is in the tables.
    """
    from hwnas_sdk.search.modnas.proposals import propose_distinct

    vector = device_vector([entry.oracle.latencies(latency_rows)])
    row_of, eligible = entry.contest.row_of, entry.eligible

    def may(genotype: tuple[int, ...]) -> bool:
        row = row_of.get(genotype, -1)
        return row >= 0 and bool(eligible[row])

    genotypes = propose_distinct(net, vector, equidistant(2, n), may=may)
    if not len(genotypes):
        raise DataError(f"{entry.device}: no proposal is in the tables", code="nothing_found")
    return entry.contest.rows(genotypes)


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
