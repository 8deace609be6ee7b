"""What measuring costs and how far it can be trusted, on the device at hand.

The same networks are measured several times: `repeat` sweeps with the adaptive settings and
`repeat` with the fixed protocol (1 s warm-up and 7 blocks of 0.5 s), in alternating order so that
a machine that changes its speed changes it for both. The first sweep starts with an empty artifact
cache: its overhead includes exporting every network and the host's own inference to compare
outputs with. The pooled truth of a network is the mean of the log latencies over all sweeps, each
sweep counted once.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import MeasurementError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.settings import MeasureSettings, settings_preset
from hwnas_sdk.devices.jobs import JobResult
from hwnas_sdk.devices.quality import quiet_verdict
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_cold
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.workflows.measure import Measurer, architecture_target, standard_sentinel

FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Sweep:
    """All networks measured once with one protocol."""

    protocol: str
    latency_ms: NDArray[np.float64]  # NaN where no valid measurement was obtained
    busy_s: float
    host_s: float
    jobs: Sequence[JobResult] = field(repr=False, default=())


def run_bench_measure(
    session: DeviceSession,
    *,
    store: MeasurementStore,
    cache: ArtifactCache,
    n: int = 50,
    repeat: int = 2,
    settings: MeasureSettings | None = None,
    compare_fixed: bool = True,
    export_ratio: bool = True,
    seed: int = 0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Measure `n` random networks `repeat` times per protocol and say what it took.

    Returns the keys of ``hwnas bench measure``; a key that could not be computed (one sweep has
    no retest, a replayed table exports nothing) is None.
    Raises: DeviceError, MeasurementError when fewer than two networks could be measured.
    """
    adaptive = settings or settings_preset("quick")
    space = get_space("nasbench201")
    export: dict[str, float | None] = {}
    if session.needs_artifacts:
        export = _export_times(space, cache, n, seed, on_event)
    if session.needs_artifacts and export_ratio:
        export |= _torch_times(space, seed, float(export["export_ms_median"] or 0.0))
    order: list[MeasureSettings] = []
    for _ in range(repeat):
        order.append(adaptive)
        if compare_fixed:
            order.append(settings_preset(FIXED, threads=adaptive.threads, runtime=adaptive.runtime))
    with cache.scratch() as cold_cache:
        sweeps = [
            _sweep(session, store, cold_cache, space, n, number, chosen, seed, on_event)
            for number, chosen in enumerate(order)
        ]
    return {
        "device": session.spec.name,
        "n": n,
        "repeat": repeat,
        "settings": adaptive.name,
        **export,
        **_figures(sweeps, adaptive.name, n),
    }


def _sweep(
    session: DeviceSession,
    store: MeasurementStore,
    cache: ArtifactCache,
    space: SearchSpace,
    n: int,
    number: int,
    settings: MeasureSettings,
    seed: int,
    on_event: EventSink,
) -> Sweep:
    """One pass over the networks; a run of its own, never continued: its times would be wrong."""
    plan = {
        "device_id": session.spec.id,
        "n": n,
        "seed": seed,
        "sweep": number,
        "nonce": uuid.uuid4().hex,
        "settings": settings.to_json(),
    }
    run = store.start_run("bench-measure", plan)
    measurer = Measurer(
        store,
        session,
        run.id,
        settings,
        sentinel=standard_sentinel(session, cache),
        check_outputs=True,
        seed=seed + number,
        on_event=on_event,
    )
    targets = [
        architecture_target(space, arch, cache=cache, folded=False)
        for arch in space.sample(n, seed=seed)
    ]
    results = measurer.measure(targets, task=f"sweep {number + 1} ({settings.name})")
    store.finish_run(run.id)
    records = [results[target.item] for target in targets]
    latency = [
        float(m.latency_ms) if m.status == "valid" and m.latency_ms is not None else np.nan
        for m in records
    ]
    return Sweep(
        settings.name, np.array(latency), measurer.time.busy_s, measurer.time.host_s, measurer.jobs
    )


def _figures(sweeps: Sequence[Sweep], adaptive: str, n: int) -> dict[str, Any]:
    matrix = np.log(np.stack([sweep.latency_ms for sweep in sweeps]))
    measured = ~np.isnan(matrix).any(axis=0)
    if measured.sum() < 2:
        raise MeasurementError(
            f"only {int(measured.sum())} of {n} networks have a valid measurement in every sweep",
            code="too_noisy",
            hint="make the machine quiet (see `hwnas doctor`)",
        )
    truth = matrix[:, measured].mean(axis=0)
    mine = [i for i, sweep in enumerate(sweeps) if sweep.protocol == adaptive]
    fixed = [i for i, sweep in enumerate(sweeps) if sweep.protocol == FIXED]

    def against_truth(rows: Sequence[int]) -> float | None:
        return _mean(kendall(truth, matrix[i, measured]) for i in rows)

    busy = statistics.fmean(sweeps[i].busy_s for i in mine)
    cold, warm = sweeps[mine[0]], sweeps[mine[-1]]
    fixed_busy = statistics.fmean(sweeps[i].busy_s for i in fixed) if fixed else None
    quiet, reasons = quiet_verdict([job for sweep in sweeps for job in sweep.jobs])
    return {
        "archs_per_s": n / cold.host_s,
        "overhead_ms_per_network": 1e3 * (cold.host_s - cold.busy_s) / n,
        "overhead_ms_per_network_exported_before": (
            1e3 * (warm.host_s - warm.busy_s) / n if len(mine) > 1 else None
        ),
        "board_s_per_network": busy / n,
        "board_s_per_network_fixed": None if fixed_busy is None else fixed_busy / n,
        "board_time_saved_vs_fixed": None if fixed_busy is None else fixed_busy / busy,
        "kendall_vs_truth": against_truth(mine),
        "kendall_vs_truth_fixed": against_truth(fixed),
        "n_compared": int(measured.sum()),
        "n_invalid": int(sum(np.isnan(sweep.latency_ms).sum() for sweep in sweeps)),
        "quiet": quiet,
        "not_quiet_because": reasons,
        **_retest([matrix[i, measured] for i in mine], ""),
        **_retest([matrix[i, measured] for i in fixed], "_fixed"),
    }


def _retest(rows: Sequence[NDArray[np.float64]], suffix: str) -> dict[str, float | None]:
    """Agreement of independent sweeps of one protocol (log latencies), mean over all pairs."""
    pairs = list(combinations(rows, 2))
    if not pairs:
        return {f"kendall_retest{suffix}": None, f"median_abs_rel_diff_retest{suffix}": None}
    return {
        f"kendall_retest{suffix}": _mean(kendall(a, b) for a, b in pairs),
        f"median_abs_rel_diff_retest{suffix}": statistics.fmean(
            float(np.median(np.abs(np.expm1(b - a)))) for a, b in pairs
        ),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None when nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _export_times(
    space: SearchSpace, cache: ArtifactCache, n: int, seed: int, on_event: EventSink
) -> dict[str, float | None]:
    """Median of cold exports: graph, emit, check, serialise, hash, durable write."""
    times_ms = []
    for i, arch in enumerate(space.sample(n, seed=seed + 1)):
        times_ms.append(1e3 * export_cold(space, arch, cache=cache, folded=False).duration_s)
        on_event(Event("export", i + 1, n))
    return {"export_ms_median": statistics.median(times_ms), "export_ms_max": max(times_ms)}


def _torch_times(space: SearchSpace, seed: int, export_ms: float) -> dict[str, float | None]:
    """Ratio to torch.onnx.export in the same process; None without torch."""
    none: Mapping[str, None] = {"export_speedup_vs_torch": None, "export_speedup_vs_dynamo": None}
    try:
        from hwnas_sdk.networks.build import build_module
        from hwnas_sdk.networks.torch_export import torch_onnx_export_seconds
    except ImportError:
        return dict(none)
    result: dict[str, float | None] = {}
    for key, dynamo, repeats in (("torch", False, 3), ("dynamo", True, 1)):
        seconds = []
        for arch in space.sample(repeats, seed=seed + 2):
            graph = space.layers(arch)
            shape = (1, *graph.input.shape)
            seconds.append(torch_onnx_export_seconds(build_module(graph), shape, dynamo=dynamo))
        result[f"export_ms_{key}"] = 1e3 * statistics.median(seconds)
        result[f"export_speedup_vs_{key}"] = 1e3 * statistics.median(seconds) / export_ms
    return result
