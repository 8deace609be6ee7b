"""`hwnas profile --active`: each network is chosen by what was measured before it.

Nothing but measurements is kept: which network comes next follows from the stored ones and the
plan, so a killed profile, given again, chooses the same networks and measures only the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import hwnas_sdk
from hwnas_sdk.core.errors import MeasurementError
from hwnas_sdk.core.events import Event
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import DeviceProfile, Measurement
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.predictors.active import MIN_NETWORKS, N_START, next_network, uncertainty_pct
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.predictors.surprise import surprise
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.sqlite import Run
from hwnas_sdk.workflows.beliefs import SURPRISING, Label
from hwnas_sdk.workflows.priors import prior_plan
from hwnas_sdk.workflows.profile import (
    ACTIVE,
    profile_of,
    reference_architectures,
    reference_targets,
)
from hwnas_sdk.workflows.profile_file import profile_to_mapping

if TYPE_CHECKING:
    from hwnas_sdk.workflows.lab import Lab


def profile_actively(
    lab: Lab,
    on: DeviceSession,
    *,
    settings: MeasureSettings,
    precision_pct: float = 3.0,
    max_networks: int = 20,
    seed: int = 0,
    prior: LatencyPrior | None = None,
) -> DeviceProfile:
    """Measure networks until a typical prediction is precise enough; keep the profile.

    A precision ends it with `MIN_NETWORKS` measured ones at the earliest, and not while the device
    looks like no known one: what is predicted of such a device is doubtful, its precision too.

    Args:
        lab: store and cache.
        on: the device.
        settings: how to measure.
        precision_pct: stop at this `uncertainty_pct`.
        max_networks: stop at this many networks, at least `N_START`.
        seed: of the choice and of the block order.
        prior: what is known about devices; None = the shipped one.

    Interrupted, the same call continues. Raises: MeasurementError when too few networks have a
        valid measurement; DeviceError.
    """
    space = get_space("nasbench201")
    plan = {
        "sdk_version": hwnas_sdk.__version__,
        "device_id": on.spec.id,
        "references": ACTIVE,
        "precision_pct": precision_pct,
        "max_networks": max_networks,
        "settings": settings.to_json(),
        "seed": seed,
        **prior_plan(prior),
    }
    run = lab.store.start_run("profile", plan)
    genotypes = NasBench201().all_genotypes()
    genotypes = genotypes[live_edges(genotypes).any(axis=1)]
    features = structural_features(genotypes)
    row_of = {tuple(genes): row for row, genes in enumerate(genotypes.tolist())}
    start = reference_architectures("ours")[: min(N_START, max_networks)]
    rows = [row_of[space.decode(arch).genotype] for arch in start]
    known = prior or LatencyPrior.shipped()
    while True:
        archs = [space.encode(space.architecture(genotypes[row])) for row in rows]
        results = _measure(lab, on, run, settings, archs, seed=seed)
        valid = {
            row: Label.of(space.decode(arch), m, folded=False)
            for row, arch, m in zip(rows, archs, results, strict=True)
            if m.status == "valid" and m.latency_ms is not None
        }
        seen = features[list(valid)]
        latency_ms = np.array([label.latency_ms for label in valid.values()])
        rel_sd = np.array([label.rel_sd or 0.0 for label in valid.values()])
        posterior: LatencyModel = known.adapt(seen, latency_ms, rel_sd)
        every = np.ones(len(features), dtype=np.bool_)
        left_pct = uncertainty_pct(posterior, features, eligible=every, seed=seed)
        likeness = surprise(known, seen, latency_ms)
        lab.on_event(
            Event(
                "profile", len(rows), max_networks,
                f"{len(valid)} networks: a typical prediction is certain to {left_pct:.1f} %",
            )
        )  # fmt: skip
        precise = (
            len(valid) >= MIN_NETWORKS and left_pct <= precision_pct and likeness >= SURPRISING
        )
        stopped = _why_stop(len(valid), precise, len(rows) >= max_networks)
        if stopped is not None:
            break
        every[rows] = False
        rows.append(next_network(posterior, features, eligible=every, seed=seed))
    if valid:
        _measure(lab, on, run, settings, archs, seed=seed, folded=True)
    try:
        profile = profile_of(
            results,
            archs,
            spec=on.spec,
            settings=settings,
            space=space.name,
            references=ACTIVE,
            source=f"run {run.id}",
            selection={
                "precision_pct": precision_pct,
                "reached_pct": left_pct,
                "surprise": likeness,
                "max_networks": max_networks,
                "n_networks": len(rows),
                "stopped": stopped,
            },
        )
    except MeasurementError:
        # Every attempt is used up: the same command must start anew, not fail for ever.
        lab.store.finish_run(run.id)
        raise
    lab.store.finish_run(run.id, profile_to_mapping(profile))
    return profile


def _why_stop(n_valid: int, precise: bool, spent: bool) -> str | None:  # noqa: FBT001
    """Why no further network is measured, or None.

    A device on which nothing is valid is disturbed: more networks only cost time.
    """
    if not n_valid:
        return "nothing_valid"
    if precise:
        return "precision"
    return "max_networks" if spent else None


def _measure(
    lab: Lab,
    on: DeviceSession,
    run: Run,
    settings: MeasureSettings,
    archs: list[str],
    *,
    seed: int,
    folded: bool = False,
) -> list[Measurement]:
    """Measure what is not done; `folded` measures the pairs that say what an empty edge costs."""
    targets, pairs = reference_targets(
        get_space("nasbench201"),
        archs,
        cache=lab.cache,
        batch=settings.batch,
        pairs=folded and on.needs_artifacts,
    )
    wanted = pairs if folded else targets
    results = lab.measurer(on, run, settings, seed=seed).measure(
        wanted, task=f"profile {on.spec.name}"
    )
    return [results[target.item] for target in wanted]
